"""What is exported: a configuration, weights under Hugging Face's names, and the head on top."""

from __future__ import annotations

import functools
import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from tfbert_npu.artifact.hashing import state_sha256
from tfbert_npu.checkpoints.names import encoder_rows, pooler_rows
from tfbert_npu.checkpoints.safetensors_files import read_tensors
from tfbert_npu.checkpoints.state import State, check_state, has_pooler, to_state, warn_left_aside
from tfbert_npu.config import BertConfig
from tfbert_npu.errors import CheckpointError
from tfbert_npu.export.keras_head import KerasHead, attach
from tfbert_npu.heads import ENCODER, HeadSpec, OutputSpec, head_named, head_of_class
from tfbert_npu.onnx.directory import TOKENIZER_FILES, VOCABULARIES
from tfbert_npu.onnx.model import (
    GraphOptions,
    check_head,
    output_names,
    output_specs,
    tensors_under,
    write_graph,
)
from tfbert_npu.repository import local_directory

Reference = Callable[[Mapping[str, np.ndarray]], Mapping[str, Any]]

_WANTED = ("config.json", "*.safetensors", "model.safetensors.index.json", *TOKENIZER_FILES)

FLOAT16_MAX = 65504.0


@dataclass(frozen=True)
class ExportSource:
    """A model, apart from the library that holds it."""

    config: BertConfig
    state: State
    """Its tensors, see `weights.names`."""
    head: HeadSpec = ENCODER
    tokenizer: Path | None = None
    """Directory with `vocab.txt`."""
    reference: Reference | None = None
    """The model itself: int32 arrays under TF-Hub's input names -> outputs by name, batch first."""
    reference_name: str = ""
    """What computes the reference, such as `"tensorflow"`."""
    keras_head: KerasHead | None = None
    """Layers of a functional model after the encoder, in place of one of the known heads."""

    @property
    def kind(self) -> str:
        """The head's name for the manifest."""
        return "custom" if self.keras_head is not None else self.head.name

    @property
    def weights_sha256(self) -> str:
        """Hash of the tensors that are exported: a bare encoder's does not depend on the heads beside it."""
        return state_sha256(tensors_under(self.state, self.head))


def source_of(
    model: Any, *, head: str | None = None, tokenizer: str | os.PathLike[str] | None = None
) -> ExportSource:
    """Take a model apart.

    Args:
        model: A `BertEncoder`, its `.mlm`, one of the `BertFor...` models, a functional model on top of a
            `BertEncoder`, a directory or hub repository of any form that `pull_from_hub` knows, or an
            `ExportSource`.
        head: What stands on the encoder; by default what the model or `config.json` says.
        tokenizer: Directory with `vocab.txt`; by default that of a Hugging Face checkpoint.

    Raises:
        ValueError: The model is none of these, or holds an encoder that runs on an NPU.
        CheckpointError: The checkpoint is damaged, or a tensor holds NaN or more than float16 can.
    """
    spec = None if head is None else head_named(head)
    directory = None if tokenizer is None else Path(tokenizer).expanduser()
    if directory is not None and not _has_vocabulary(directory):
        raise FileNotFoundError(
            f"{directory} holds no vocab.txt or tokenizer.json; give the directory of the model's tokenizer"
        )
    if isinstance(model, ExportSource):
        source = model
    elif isinstance(model, (str, os.PathLike)):
        source = _from_directory(model, spec)
    else:
        if "tfbert_npu.models.encoder" not in sys.modules:  # then it cannot be one of ours
            raise ValueError(strange(model))
        source = _keras_side().from_keras(model)
    if spec is not None and spec != source.head:
        source = replace(source, head=spec, reference=None, reference_name="", keras_head=None)
    if directory is not None:
        source = replace(source, tokenizer=directory)
    check_numbers(source.state)
    return source


def graph_of(source: ExportSource, options: GraphOptions) -> Any:
    """The ONNX graph of a source (`onnx.ModelProto`)."""
    if source.keras_head is None:
        return write_graph(source.config, source.state, source.head, options)
    if options.outputs is not None or options.masked_positions is not None:
        raise ValueError("a functional model gives its own outputs; leave out outputs and masked_positions")
    encoder = write_graph(
        source.config, source.state, ENCODER, replace(options, outputs=source.keras_head.takes)
    )
    return attach(encoder, source.keras_head)


def outputs_of(
    source: ExportSource, outputs: Sequence[str] | None, masked_positions: bool = False
) -> tuple[OutputSpec, ...]:
    """The outputs of `graph_of`, in their order."""
    if source.keras_head is not None:
        return source.keras_head.gives
    known = output_specs(source.config, source.head, masked_positions)
    return tuple(known[name] for name in output_names(source.config, source.head, outputs))


def check_numbers(state: Mapping[str, np.ndarray]) -> None:
    """Make sure that every weight can be computed with in float16.

    Raises:
        CheckpointError: A tensor holds NaN, infinity, or more than 65504.
    """
    for name, tensor in state.items():
        # One pass: NaN makes the maximum NaN, and no comparison with NaN holds.
        largest = float(np.max(np.abs(tensor), initial=0.0))
        if not largest <= FLOAT16_MAX:
            what = "NaN or infinity" if not np.isfinite(largest) else f"{largest:.3g}, more than float16 can"
            raise CheckpointError(
                f"the weights cannot be exported: {name} holds {what}", "train the model again"
            )


def _from_directory(model: str | os.PathLike[str], head: HeadSpec | None) -> ExportSource:
    directory = local_directory(model, _WANTED)
    if not (directory / "config.json").is_file() or not any(directory.glob("*.safetensors")):
        if head is None and (directory / "config.json").is_file():
            head = _head_in(directory / "config.json")
        return _keras_side().from_another_form(model, head)
    config = BertConfig.from_json(directory / "config.json", source="huggingface")
    state = to_state(read_tensors(directory), config)
    if head is None:
        head = _head_in(directory / "config.json")
    rows = [*encoder_rows(config), *(pooler_rows(config) if has_pooler(state, config) else ())]
    warn_left_aside(directory, check_state(state, rows, config))
    return ExportSource(config, state, head, directory if _has_vocabulary(directory) else None)


def _has_vocabulary(directory: Path) -> bool:
    return any((directory / name).is_file() for name in VOCABULARIES)


def _head_in(path: Path) -> HeadSpec:
    architectures = json.loads(path.read_text(encoding="utf-8-sig")).get("architectures") or ["BertModel"]
    return head_of_class(str(architectures[0])) or ENCODER


def strange(model: Any) -> str:
    """Why a model cannot be exported."""
    return (
        f"a {type(model).__name__} cannot be exported; give a BertEncoder, one of the BertFor... models, a "
        "functional model on top of an encoder, or the directory of a checkpoint"
    )


def tensorflow_reference(source: ExportSource) -> ExportSource:
    """The source with our Keras model as its reference, if it has none and TensorFlow is installed.

    The model is built when the reference is first asked, which is after the compiler has done its work.

    Raises:
        ValueError: The weights lack the head's.
    """
    check_head(source.state, source.head)
    if source.reference is not None or find_spec("tensorflow") is None:
        return source
    return replace(source, reference=_Rebuilt(source), reference_name="tensorflow")


class _Rebuilt:
    """The Keras model of a source's weights, built at the first call."""

    def __init__(self, source: ExportSource) -> None:
        self._source = source

    def __call__(self, inputs: Mapping[str, np.ndarray]) -> Mapping[str, Any]:
        return self._reference(inputs)

    @functools.cached_property
    def _reference(self) -> Reference:
        return _keras_side().reference_of(self._source)


def _keras_side() -> ModuleType:
    """What needs TensorFlow, which most exports from a directory do not wait for."""
    from tfbert_npu.export import keras_source

    return keras_source
