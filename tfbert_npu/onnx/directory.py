"""An artifact directory around `model.onnx`: configuration, tokenizer, manifest."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from tfbert_npu._version import __version__
from tfbert_npu.artifact.agreement import Agreement, summary
from tfbert_npu.artifact.embeddings import EMBEDDINGS, HostEmbeddings
from tfbert_npu.artifact.hashing import sha256_of
from tfbert_npu.artifact.manifest import Manifest, ModelFile, SupportFile, SupportKind
from tfbert_npu.artifact.reference import REFERENCE
from tfbert_npu.checkpoints.sentence_options import SENTENCE_FILES
from tfbert_npu.checkpoints.state import State
from tfbert_npu.config import BertConfig
from tfbert_npu.heads import HeadSpec
from tfbert_npu.onnx.running import Placing
from tfbert_npu.onnx.signature import Signature

VOCABULARIES = ("vocab.txt", "tokenizer.json")
TOKENIZER_FILES = (*VOCABULARIES, "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json")
_LOG = logging.getLogger(__name__)


class Model(Protocol):
    """What goes into a directory; an export's source is one."""

    @property
    def config(self) -> BertConfig:
        """The architecture."""

    @property
    def state(self) -> State:
        """The tensors."""

    @property
    def head(self) -> HeadSpec:
        """What stands on the encoder."""

    @property
    def kind(self) -> str:
        """The head's name for the manifest."""

    @property
    def tokenizer(self) -> Path | None:
        """A directory with the vocabulary."""

    @property
    def weights_sha256(self) -> str:
        """Hash of the tensors that the graph holds."""


def write_onnx_contents(
    directory: Path,
    source: Model,
    signature: Signature,
    options: Placing,
    agreements: Mapping[str, Agreement],
) -> Manifest:
    """Complete a directory that holds `model.onnx` alone, for the CPU; the manifest comes last."""
    support = [*write_support(directory, source, options, {}), *reference_files(directory)]
    path = directory / "model.onnx"
    model = ModelFile(
        path=path.name,
        kind="onnx",
        sha256=sha256_of(path),
        size=path.stat().st_size,
        shapes=(),
        inputs=signature.inputs,
        outputs=signature.outputs,
        precision="fp32",
    )
    manifest = Manifest(
        head=source.kind,
        embeddings=options.embeddings,
        layout="dynamic",
        precision="fp32",
        models=(model,),
        support=support_files(directory, support),
        source_sha256=source.weights_sha256,
        parity=summary(agreements),
        created_by=f"tfbert-npu {__version__}",
    )
    manifest.write(directory)
    return manifest


def write_support(
    directory: Path, source: Model, options: Placing, more: Mapping[str, Any]
) -> list[tuple[str, SupportKind]]:
    """Write `config.json` with `more` in it, tables of the host, tokenizer; returns names and kinds.

    In `more` is rk-transformers' "rknn" block: relative path -> settings of that file.
    """
    family = "DistilBert" if source.config.model_type == "distilbert" else "Bert"
    values = {**source.config.to_huggingface(family + source.head.suffix), **more}
    text = json.dumps(values, indent=2, ensure_ascii=False)
    (directory / "config.json").write_text(text + "\n", encoding="utf-8")
    support: list[tuple[str, SupportKind]] = [("config.json", "config")]
    if options.embeddings == "host":
        HostEmbeddings.from_state(source.state).save(directory, pooler=options.packed)
        support.append((EMBEDDINGS, "embeddings"))
    if source.tokenizer is not None:
        # How text becomes ids, and hidden states a sentence vector.
        for pattern in (*TOKENIZER_FILES, *SENTENCE_FILES):
            for path in sorted(source.tokenizer.glob(pattern)):
                name = path.relative_to(source.tokenizer).as_posix()
                (directory / name).parent.mkdir(exist_ok=True)
                shutil.copyfile(path, directory / name)
                support.append((name, "tokenizer"))
    else:
        _LOG.warning(
            "the model came without a vocabulary, so no command can ask the artifact; pass tokenizer="
        )
    return support


def reference_files(directory: Path) -> list[tuple[str, SupportKind]]:
    """`reference.npz`, where it was written."""
    return [(REFERENCE, "reference")] if (directory / REFERENCE).is_file() else []


def support_files(directory: Path, support: list[tuple[str, SupportKind]]) -> tuple[SupportFile, ...]:
    """The manifest's entries of files that lie in the directory."""
    return tuple(
        SupportFile(name, kind, sha256_of(directory / name), (directory / name).stat().st_size)
        for name, kind in support
    )
