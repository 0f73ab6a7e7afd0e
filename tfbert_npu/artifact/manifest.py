"""`manifest.json`: what is in an artifact directory, how it was made, and what it was measured to do."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from tfbert_npu._files import refuse_pointer, replacing
from tfbert_npu.artifact.hashing import sha256_of
from tfbert_npu.errors import ArtifactError

MANIFEST = "manifest.json"
FORMAT_VERSION = 1
_MOST_BYTES = 64 * 2**20

Layout = Literal["dynamic", "static"]
Precision = Literal["fp16", "w8a8", "w8a16", "w4a16"]
SupportKind = Literal["embeddings", "tokenizer", "config", "quantization", "report", "reference"]


@dataclass(frozen=True)
class TensorSpec:
    """An input or output: name, numpy dtype, and shape with -1 for batch and length where they vary."""

    name: str
    dtype: str
    shape: tuple[int, ...]

    def at(self, shape: tuple[int, int]) -> tuple[int, ...]:
        """The tensor's shape at a (batch, length): an open first axis is the batch, any other the length."""
        batch, length = shape
        return tuple(
            (length if axis else batch) if size == -1 else size for axis, size in enumerate(self.shape)
        )


@dataclass(frozen=True)
class ModelFile:
    """A file that holds the network: an `.rknn` for the NPU, or the ONNX that it was compiled from."""

    path: str
    """Relative to the directory, with forward slashes."""
    kind: Literal["rknn", "onnx"]
    sha256: str
    size: int
    """Bytes."""
    shapes: tuple[tuple[int, int], ...]
    """(batch, length) pairs that it takes; empty for an ONNX file that takes any."""
    inputs: tuple[TensorSpec, ...]
    """In the order in which the runtime wants them."""
    outputs: tuple[TensorSpec, ...]
    platform: str | None = None
    """SoC that it was compiled for; None for ONNX."""
    toolkit_version: str | None = None
    """Compiler's version; the board's runtime must not be older."""
    precision: str | None = None


@dataclass(frozen=True)
class SupportFile:
    """A file that the runtime needs beside the network."""

    path: str
    kind: SupportKind
    sha256: str
    size: int


@dataclass(frozen=True)
class Manifest:
    """The content of `manifest.json`.

    `parity` is the gate's result, the worst over all shapes: for each output, cosine and largest absolute
    difference from the reference at real tokens. `cost` is, for each shape, under "1x128", the
    compiler's count (cycles, MB moved, operators on NPU and CPU) and under "predicted" the time of a call
    with its error, see `rknn.time_model`, or the reason why there is none.
    """

    head: str
    """What stands on the encoder: `"encoder"`, `"masked_lm"`, `"token_classification"`, ..."""
    embeddings: Literal["inside", "host"]
    """`"host"`: the caller sums the embeddings, see `artifact.embeddings`."""
    layout: Layout
    precision: str
    models: tuple[ModelFile, ...]
    support: tuple[SupportFile, ...]
    source_sha256: str
    """Hash of the weights that were exported, see `hashing.state_sha256`: of the encoder with its pooler, and
    of the head if it was exported too."""
    parity: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    gate: Mapping[str, Any] = field(default_factory=dict)
    """How the gate was run: reference, texts, threshold, results per shape, range of activations."""
    cost: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    build: Mapping[str, Any] = field(default_factory=dict)
    """How the compiler was called: options, versions, time and memory; for int8 the recipe."""
    created_by: str = ""
    format_version: int = FORMAT_VERSION

    @property
    def rknn_files(self) -> tuple[ModelFile, ...]:
        """The files for the NPU."""
        return tuple(model for model in self.models if model.kind == "rknn")

    @property
    def onnx_file(self) -> ModelFile | None:
        """The ONNX file, if there is one."""
        return next((model for model in self.models if model.kind == "onnx"), None)

    def only(self, file: str) -> Manifest:
        """The same with one of its `.rknn` files, beside the ONNX file.

        Raises:
            ArtifactError: It has no such file.
        """
        kept = tuple(model for model in self.models if model.kind != "rknn" or model.path == file)
        if not any(model.path == file for model in kept):
            names = ", ".join(model.path for model in self.rknn_files)
            raise ArtifactError(f"the manifest knows no .rknn file {file!r}", f"it has {names}")
        return dataclasses.replace(self, models=kept)

    def to_json(self) -> str:
        """The text of `manifest.json`."""
        return json.dumps(dataclasses.asdict(self), indent=2, ensure_ascii=False) + "\n"

    def write(self, directory: str | os.PathLike[str]) -> None:
        """Write `manifest.json`, whole or not at all.

        Raises:
            ArtifactError: It does not fit the published schema.
        """
        text = self.to_json()
        _validate(json.loads(text), Path(directory) / MANIFEST)
        with replacing(Path(directory) / MANIFEST) as temporary:
            temporary.write_text(text, encoding="utf-8")

    @classmethod
    def read(cls, directory: str | os.PathLike[str]) -> Manifest:
        """Read `manifest.json` and check it against the published schema.

        Raises:
            FileNotFoundError: The directory has none; it is no artifact.
            ArtifactError: It is damaged, of a newer format, or names files outside of the directory.
        """
        path = Path(directory) / MANIFEST
        if not path.is_file():
            raise FileNotFoundError(f"{directory} is no artifact directory: it holds no {MANIFEST}")
        if path.stat().st_size > _MOST_BYTES:
            raise ArtifactError(f"{path} is longer than any manifest", "export or copy it again")
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
        except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
            refuse_pointer(path)
            raise ArtifactError(f"{path} is not JSON ({error})", "export or copy it again") from error
        if isinstance(values, dict) and values.get("format_version", 0) != FORMAT_VERSION:
            raise ArtifactError(
                f"{path} is of format {values.get('format_version')!r}, and this package reads "
                f"{FORMAT_VERSION}",
                "upgrade tfbert-npu or export again",
            )
        _validate(values, path)
        return cls(
            **{
                **values,
                "models": tuple(_model_file(value) for value in values["models"]),
                "support": tuple(SupportFile(**value) for value in values["support"]),
            }
        )

    def check_files(self, directory: str | os.PathLike[str], paths: Iterable[str] | None = None) -> None:
        """Compare size and SHA-256 of the files with the manifest, before native code reads them.

        Args:
            directory: Where the files are.
            paths: Only these of the manifest's files; by default all.

        Raises:
            ArtifactError: A file is missing or is not the one that was exported.
        """
        wanted = None if paths is None else set(paths)
        entries: tuple[ModelFile | SupportFile, ...] = (*self.models, *self.support)
        for entry in entries:
            if wanted is not None and entry.path not in wanted:
                continue
            path = Path(directory) / entry.path
            if not path.is_file():
                raise ArtifactError(f"{path} is missing", "copy or export the directory again")
            size = path.stat().st_size
            if size != entry.size:
                refuse_pointer(path)
                raise ArtifactError(
                    f"{path} has {size} bytes, not the {entry.size} of the manifest",
                    "copy or export it again",
                )
            if sha256_of(path) != entry.sha256:
                raise ArtifactError(
                    f"{path} is not the file that was exported (SHA-256)", "copy or export it again"
                )


def schema() -> dict[str, Any]:
    """The JSON schema of `manifest.json` (draft 2020-12)."""
    text = (files(__package__) / "manifest.schema.json").read_text(encoding="utf-8")
    value: dict[str, Any] = json.loads(text)
    return value


def _validate(values: Any, path: Path) -> None:
    import jsonschema  # 60 ms that only those pay who read a manifest

    try:
        jsonschema.Draft202012Validator(schema()).validate(values)
    except jsonschema.ValidationError as error:
        place = "/".join(map(str, error.absolute_path)) or "the top"
        raise ArtifactError(
            f"{path} does not fit its schema at {place}: {error.message[:200]}", "export it again"
        ) from error
    for entry in (*values["models"], *values["support"]):
        inside = PurePosixPath(entry["path"])
        if inside.is_absolute() or ".." in inside.parts or "\\" in entry["path"]:
            raise ArtifactError(
                f"{path} names {entry['path']!r}, a file outside of its directory", "do not use it"
            )


def _model_file(value: Mapping[str, Any]) -> ModelFile:
    def specs(name: str) -> tuple[TensorSpec, ...]:
        return tuple(TensorSpec(s["name"], s["dtype"], tuple(s["shape"])) for s in value[name])

    shapes = tuple((int(batch), int(length)) for batch, length in value["shapes"])
    return ModelFile(**{**value, "shapes": shapes, "inputs": specs("inputs"), "outputs": specs("outputs")})
