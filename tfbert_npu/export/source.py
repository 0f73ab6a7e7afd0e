"""What is exported: a configuration, weights under Hugging Face's names, and the head on top."""

from __future__ import annotations

import functools
import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from tfbert_npu.artifact.hashing import state_sha256
from tfbert_npu.checkpoints.repository import local_directory
from tfbert_npu.checkpoints.safetensors_files import read_tensors
from tfbert_npu.checkpoints.state import State, check_state, has_pooler, to_state
from tfbert_npu.config import BertConfig
from tfbert_npu.export.delegated import refuse_delegated
from tfbert_npu.export.keras_head import KerasHead, attach
from tfbert_npu.heads import ENCODER, HeadSpec, OutputSpec, head_named, head_of_class
from tfbert_npu.onnx.model import (
    GraphOptions,
    check_head,
    output_names,
    output_specs,
    tensors_under,
    write_graph,
)

Reference = Callable[[Mapping[str, np.ndarray]], Mapping[str, Any]]

_VOCABULARIES = ("vocab.txt", "tokenizer.json")
TOKENIZER_FILES = (*_VOCABULARIES, "tokenizer_config.json", "special_tokens_map.json")
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
        source = _from_keras(model)
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
    from tfbert_npu.errors import CheckpointError

    for name, tensor in state.items():
        # One pass: NaN makes the maximum NaN, and no comparison with NaN holds.
        largest = float(np.max(np.abs(tensor), initial=0.0))
        if not largest <= FLOAT16_MAX:
            what = "NaN or infinity" if not np.isfinite(largest) else f"{largest:.3g}, more than float16 can"
            raise CheckpointError(
                f"the weights cannot be exported: {name} holds {what}; train the model again"
            )


def _from_directory(model: str | os.PathLike[str], head: HeadSpec | None) -> ExportSource:
    directory = local_directory(model, _WANTED)
    if not (directory / "config.json").is_file() or not any(directory.glob("*.safetensors")):
        return _from_another_form(model, head)
    config = BertConfig.from_json(directory / "config.json", source="huggingface")
    state = to_state(read_tensors(directory), config)
    if head is None:
        head = _head_in(directory / "config.json")
    from tfbert_npu.checkpoints.names import encoder_rows, pooler_rows

    rows = [*encoder_rows(config), *(pooler_rows(config) if has_pooler(state, config) else ())]
    check_state(state, rows, config)
    return ExportSource(config, state, head, directory if _has_vocabulary(directory) else None)


def _from_another_form(model: str | os.PathLike[str], head: HeadSpec | None) -> ExportSource:
    """TF-Hub modules, Google's checkpoints and what else `pull_from_hub` rebuilds; needs TensorFlow."""
    from tfbert_npu.hub.pull import pull_from_hub

    return _from_keras(pull_from_hub(model, component="encoder" if head in (None, ENCODER) else "model"))


def _has_vocabulary(directory: Path) -> bool:
    return any((directory / name).is_file() for name in _VOCABULARIES)


def _head_in(path: Path) -> HeadSpec:
    architectures = json.loads(path.read_text(encoding="utf-8-sig")).get("architectures") or ["BertModel"]
    return head_of_class(str(architectures[0])) or ENCODER


def _from_keras(model: Any) -> ExportSource:
    if "tfbert_npu.models.encoder" not in sys.modules:  # then it cannot be one of ours
        raise ValueError(_strange(model))
    import keras

    from tfbert_npu.checkpoints.names import head_rows
    from tfbert_npu.checkpoints.variables import extract, rows_of
    from tfbert_npu.export.keras_head import outputs_by_name, take_apart
    from tfbert_npu.models.encoder import BertEncoder
    from tfbert_npu.models.head import BertHead
    from tfbert_npu.models.heads import BertForMaskedLM
    from tfbert_npu.models.mlm import MaskedLMEncoder

    if isinstance(model, keras.layers.Layer):  # a keras.Model is one
        refuse_delegated(model)  # its outputs, the reference of the gate, would be the NPU's own
    if isinstance(model, MaskedLMEncoder):
        model = BertForMaskedLM(model.encoder)  # the same variables
    if isinstance(model, BertEncoder):
        if model.causal:
            raise ValueError("a causal encoder cannot be exported alone; export its BertLMHeadModel")
        model.build()
        state = extract(model, [row for row in rows_of(model) if not row.attribute.startswith("mlm_head.")])
        return ExportSource(model.config, state, ENCODER, None, _keras_reference(model), "tensorflow")
    if isinstance(model, keras.Model) and not isinstance(model, BertHead):
        encoder, after = take_apart(model)
        state = extract(encoder, [r for r in rows_of(encoder) if not r.attribute.startswith("mlm_head.")])
        reference = functools.partial(outputs_by_name, model)
        return ExportSource(encoder.config, state, ENCODER, None, reference, "tensorflow", after)
    if not isinstance(model, BertHead):
        raise ValueError(_strange(model))
    model.build()
    state = extract(model.encoder, rows_of(model.encoder))
    state |= extract(model, [row for part in model.parts for row in head_rows(part)])
    return ExportSource(model.config, state, model.spec, None, _head_reference(model), "tensorflow")


def _strange(model: Any) -> str:
    return (
        f"a {type(model).__name__} cannot be exported; give a BertEncoder, one of the BertFor... models, a "
        "functional model on top of an encoder, or the directory of a checkpoint"
    )


def tensorflow_reference(source: ExportSource) -> ExportSource:
    """The source with our Keras model as its reference, if it has none and TensorFlow is installed.

    Raises:
        ValueError: The weights lack the head's.
    """
    check_head(source.state, source.head)
    if source.reference is not None:
        return source
    try:
        from tfbert_npu.models import heads  # noqa: F401 - defines the classes
        from tfbert_npu.models.encoder import BertEncoder
        from tfbert_npu.models.head import BertHead
    except ImportError:
        return source
    from tfbert_npu.checkpoints.head_files import build_head
    from tfbert_npu.checkpoints.variables import assign, rows_of

    if source.head == ENCODER:
        encoder = BertEncoder(
            source.config, add_pooler=has_pooler(source.state, source.config), dtype="float32"
        )
        encoder.build()
        assign(encoder, rows_of(encoder), source.state)
        reference = _keras_reference(encoder)
    else:
        cls = BertHead.class_of(source.head)
        # One label per row of the last layer, also where a configuration says nothing of labels.
        counts = [len(source.state[f"{x.tensor}.weight"]) for x in source.head.layers if x.units == "L"]
        labels = counts[-1] if counts else None
        model = build_head(
            cls, source.config, dict(source.state), Path("the model"), num_labels=labels, dtype="float32"
        )
        reference = _head_reference(model)
    return replace(source, reference=reference, reference_name="tensorflow")


def _keras_reference(encoder: Any) -> Reference:
    from keras.ops import convert_to_numpy

    def call(inputs: Mapping[str, np.ndarray]) -> dict[str, Any]:
        outputs = encoder(_encoder_inputs(inputs), training=False)
        named = {name: convert_to_numpy(outputs[name]) for name in ("pooled_output", "sequence_output")}
        for index, value in enumerate(outputs["encoder_outputs"]):
            named[f"encoder_outputs_{index}"] = convert_to_numpy(value)
        return named

    return call


def _head_reference(model: Any) -> Reference:
    from keras.ops import convert_to_numpy

    names = [spec.name for spec in model.spec.outputs]
    encode = _keras_reference(model.encoder)

    def call(inputs: Mapping[str, np.ndarray]) -> dict[str, Any]:
        given = dict(inputs)
        if model.spec.choices:  # rows of the batch are choices, each of a question of its own
            given = {name: value[:, None] for name, value in inputs.items()}
        outputs = model(given, training=False)
        if not isinstance(outputs, Mapping):
            outputs = {names[0]: outputs}
        return {**encode(inputs), **{name: convert_to_numpy(outputs[name]) for name in names}}

    return call


def _encoder_inputs(inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {name: value for name, value in inputs.items() if name != "masked_lm_positions"}
