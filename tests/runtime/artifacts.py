"""Artifact directories for the double: a small random BERT as ONNX, and files that pass for .rknn around it."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from tests.runtime.double.model_file import CHECKSUM, FakeModel
from tfbert_npu.artifact.embeddings import EMBEDDINGS, HostEmbeddings
from tfbert_npu.artifact.hashing import sha256_of
from tfbert_npu.artifact.manifest import Manifest, ModelFile, SupportFile, TensorSpec

SHAPES = ((1, 16), (4, 16), (1, 32), (1, 64))
HIDDEN = 16
CONFIG = {
    "model_type": "bert",
    "vocab_size": 50000,
    "hidden_size": HIDDEN,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "max_position_embeddings": 128,
    "type_vocab_size": 2,
    "hidden_act": "gelu",
}
INPUTS = tuple(
    TensorSpec(name, "int32", (-1, -1)) for name in ("input_word_ids", "input_mask", "input_type_ids")
)
OUTPUTS = (
    TensorSpec("pooled_output", "float32", (-1, HIDDEN)),
    TensorSpec("sequence_output", "float32", (-1, -1, HIDDEN)),
)


def write_artifact(
    directory: Path,
    *,
    shapes: Sequence[tuple[int, int]] = SHAPES,
    layout: str = "dynamic",
    payload: bytes = CHECKSUM,
    onnx: bytes = b"",
    config: dict[str, Any] = CONFIG,
    inputs: Sequence[TensorSpec] = INPUTS,
    outputs: Sequence[TensorSpec] = OUTPUTS,
    head: str = "encoder",
    platform: str = "rk3588",
    version: str = "2.5.0",
    source_sha256: str = "0" * 64,
    tables: HostEmbeddings | None = None,
) -> Path:
    """An artifact directory whose .rknn files the double computes."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "config.json").write_text(json.dumps(config))
    files = [("model.rknn", tuple(shapes))]
    if layout == "static":
        files = [(f"model_b{batch}_s{length}.rknn", ((batch, length),)) for batch, length in shapes]
    models = []
    for name, taken in files:
        FakeModel(
            inputs=[(spec.name, spec.dtype) for spec in inputs],
            outputs=[(spec.name, spec.dtype) for spec in outputs],
            input_shapes=[[spec.at(shape) for spec in inputs] for shape in taken],
            output_shapes=[[spec.at(shape) for spec in outputs] for shape in taken],
            platform=platform,
            version=version,
            payload=payload,
        ).write(directory / name)
        models.append(_entry(directory / name, "rknn", taken, inputs, outputs, platform, version))
    if onnx:
        (directory / "model.onnx").write_bytes(onnx)
        models.append(_entry(directory / "model.onnx", "onnx", (), inputs, outputs))
    kinds: list[tuple[str, Any]] = [("config.json", "config")]
    if tables is not None:
        tables.save(directory, pooler=any(len(s.shape) == 3 for s in inputs if "bias" in s.name))
        kinds.append((EMBEDDINGS, "embeddings"))
    support = []
    for name, kind in kinds:
        path = directory / name
        support.append(SupportFile(name, kind, sha256_of(path), path.stat().st_size))
    Manifest(
        head=head,
        embeddings="inside" if tables is None else "host",
        layout=layout,  # type: ignore[arg-type]
        precision="fp16",
        models=tuple(models),
        support=tuple(support),
        source_sha256=source_sha256,
    ).write(directory)
    return directory


def write_foreign(
    directory: Path,
    *,
    files: Mapping[str, tuple[int, int]] = MappingProxyType({"rknn/model_b1_s32_o3.rknn": (1, 32)}),
    dtype: str = "int64",
    inputs: Sequence[str] = ("input_ids", "attention_mask", "token_type_ids"),
    outputs: Mapping[str, tuple[int, ...]] = MappingProxyType(
        {"pooler_output": (-1, HIDDEN), "last_hidden_state": (-1, -1, HIDDEN)}
    ),
    config: dict[str, Any] = CONFIG,
) -> Path:
    """A directory as rk-transformers writes it: no manifest, Hugging Face's names, float16 outputs."""
    for name, shape in files.items():
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        FakeModel(
            inputs=[(name, dtype) for name in inputs],
            outputs=[(name, "float16") for name in outputs],
            input_shapes=[[shape for _ in inputs]],
            output_shapes=[[TensorSpec(name, "", sizes).at(shape) for name, sizes in outputs.items()]],
            platform="rk3588",
            version="2.3.2",
        ).write(directory / name)
    (directory / "config.json").write_text(json.dumps({**config, "rknn": {name: {} for name in files}}))
    return directory


def change_manifest(directory: Path, **changes: Any) -> None:
    dataclasses.replace(Manifest.read(directory), **changes).write(directory)


def requests(
    rng: np.random.Generator, batch: int, width: int, vocabulary: int = 50000
) -> dict[str, np.ndarray]:
    """Random ids with padding of different lengths."""
    lengths = rng.integers(1, width + 1, batch)
    mask = (np.arange(width) < lengths[:, None]).astype(np.int32)
    ids = rng.integers(1, vocabulary, (batch, width)).astype(np.int32) * mask
    types = (np.arange(width) >= lengths[:, None] // 2).astype(np.int32) * mask
    return {"input_word_ids": ids, "input_mask": mask, "input_type_ids": types}


def _entry(
    path: Path, kind: Any, shapes: Any, inputs: Any, outputs: Any, platform: Any = None, version: Any = None
) -> ModelFile:
    return ModelFile(
        path=path.name,
        kind=kind,
        sha256=sha256_of(path),
        size=path.stat().st_size,
        shapes=shapes,
        inputs=tuple(inputs),
        outputs=tuple(outputs),
        platform=platform,
        toolkit_version=version,
    )
