"""A Keras model as an `ExportSource`, and back as the reference of the gate; needs TensorFlow."""

from __future__ import annotations

import functools
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras.ops import convert_to_numpy

from tfbert_npu._files import scratch_directory
from tfbert_npu.checkpoints.head_files import build_head
from tfbert_npu.checkpoints.names import head_rows
from tfbert_npu.checkpoints.state import has_pooler
from tfbert_npu.checkpoints.variables import assign, extract, rows_of
from tfbert_npu.export.delegated import refuse_delegated
from tfbert_npu.export.keras_head import outputs_by_name, take_apart
from tfbert_npu.export.source import ExportSource, Reference, strange
from tfbert_npu.heads import ENCODER, HeadSpec
from tfbert_npu.hub.pull import pull_from_hub
from tfbert_npu.models import heads  # noqa: F401 - defines the classes
from tfbert_npu.models.encoder import BertEncoder
from tfbert_npu.models.head import BertHead
from tfbert_npu.models.heads import BertForMaskedLM
from tfbert_npu.models.mlm import MaskedLMEncoder
from tfbert_npu.preprocess import TextOptions, Vocabulary
from tfbert_npu.preprocess.saving import save_tokenizer

_kept: list[tempfile.TemporaryDirectory[str]] = []
"""Removed when the process ends: an export reads its vocabulary until its last step."""


def from_another_form(model: str | os.PathLike[str], head: HeadSpec | None) -> ExportSource:
    """TF-Hub modules, Google's checkpoints and what else `pull_from_hub` rebuilds; needs TensorFlow."""
    return from_keras(pull_from_hub(model, component="encoder" if head in (None, ENCODER) else "model"))


def from_keras(model: Any) -> ExportSource:
    """Take a Keras model apart; see `source_of`."""
    if isinstance(model, keras.layers.Layer):  # a keras.Model is one
        refuse_delegated(model)  # its outputs, the reference of the gate, would be the NPU's own
    if isinstance(model, MaskedLMEncoder):
        model = BertForMaskedLM(model.encoder)  # the same variables
    if isinstance(model, BertEncoder):
        if model.causal:
            raise ValueError("a causal encoder cannot be exported alone; export its BertLMHeadModel")
        model.build()
        state = extract(model, [row for row in rows_of(model) if not row.attribute.startswith("mlm_head.")])
        return ExportSource(
            model.config, state, ENCODER, _vocabulary_of(model), _keras_reference(model), "tensorflow"
        )
    if isinstance(model, keras.Model) and not isinstance(model, BertHead):
        encoder, after = take_apart(model)
        state = extract(encoder, [r for r in rows_of(encoder) if not r.attribute.startswith("mlm_head.")])
        reference = functools.partial(outputs_by_name, model)
        return ExportSource(encoder.config, state, ENCODER, None, reference, "tensorflow", after)
    if not isinstance(model, BertHead):
        raise ValueError(strange(model))
    model.build()
    state = extract(model.encoder, rows_of(model.encoder))
    state |= extract(model, [row for part in model.parts for row in head_rows(part)])
    return ExportSource(model.config, state, model.spec, None, _head_reference(model), "tensorflow")


def _vocabulary_of(encoder: BertEncoder) -> Path | None:
    """A tokenizer's directory for an encoder with TF-Hub's attributes, whose vocabulary is an asset."""
    file, lower_case = getattr(encoder, "vocab_file", None), getattr(encoder, "do_lower_case", None)
    if not isinstance(file, str | os.PathLike) or not Path(file).is_file():
        return None
    if lower_case is None and Path(file).name == "vocab.txt":
        return Path(file).parent
    directory = scratch_directory()
    _kept.append(directory)
    options = TextOptions(lower_case=lower_case is None or bool(lower_case))
    save_tokenizer(Vocabulary.from_file(file), options, directory.name)
    return Path(directory.name)


def reference_of(source: ExportSource) -> Reference:
    """Build the Keras model of a source's weights, as a function from inputs to outputs."""
    if source.head == ENCODER:
        encoder = BertEncoder(
            source.config, add_pooler=has_pooler(source.state, source.config), dtype="float32"
        )
        encoder.build()
        assign(encoder, rows_of(encoder), source.state)
        return _keras_reference(encoder)
    cls = BertHead.class_of(source.head)
    # One label per row of the last layer, also where a configuration says nothing of labels.
    counts = [len(source.state[f"{x.tensor}.weight"]) for x in source.head.layers if x.units == "L"]
    labels = counts[-1] if counts else None
    model = build_head(
        cls, source.config, dict(source.state), Path("the model"), num_labels=labels, dtype="float32"
    )
    return _head_reference(model)


def _keras_reference(encoder: Any) -> Reference:
    def call(inputs: Mapping[str, np.ndarray]) -> dict[str, Any]:
        outputs = encoder(_encoder_inputs(inputs), training=False)
        named = {name: convert_to_numpy(outputs[name]) for name in ("pooled_output", "sequence_output")}
        for index, value in enumerate(outputs["encoder_outputs"]):
            named[f"encoder_outputs_{index}"] = convert_to_numpy(value)
        return named

    return call


def _head_reference(model: Any) -> Reference:
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
