"""What is exported: a configuration, weights under Hugging Face's names, and the head on top."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tfbert_npu.config import BertConfig
from tfbert_npu.export.graph.model import Head, head_outputs
from tfbert_npu.repository import local_directory
from tfbert_npu.weights.safetensors_files import read_tensors
from tfbert_npu.weights.state import State, check_state, has_pooler, to_state

Reference = Callable[[Mapping[str, np.ndarray]], Mapping[str, Any]]

TOKENIZER_FILES = ("vocab.txt", "tokenizer_config.json", "special_tokens_map.json")
_WANTED = ("config.json", "*.safetensors", "model.safetensors.index.json", *TOKENIZER_FILES)

FLOAT16_MAX = 65504.0

# transformers' class names, as in config.json's "architectures".
_HEAD_OF_CLASS: dict[str, Head] = {
    "Model": "encoder",
    "ForMaskedLM": "masked_lm",
    "LMHeadModel": "causal_lm",
    "ForPreTraining": "pretraining",
    "ForNextSentencePrediction": "next_sentence",
    "ForSequenceClassification": "sequence_classification",
    "ForMultipleChoice": "multiple_choice",
    "ForTokenClassification": "token_classification",
    "ForQuestionAnswering": "question_answering",
}


@dataclass(frozen=True)
class ExportSource:
    """A model, apart from the library that holds it."""

    config: BertConfig
    state: State
    """Its tensors, see `weights.names`."""
    head: Head = "encoder"
    tokenizer: Path | None = None
    """Directory with `vocab.txt`."""
    reference: Reference | None = None
    """The model itself: int32 arrays under TF-Hub's input names -> outputs by name, batch first."""
    reference_name: str = ""
    """What computes the reference, such as `"tensorflow"`."""


def source_of(
    model: Any, *, head: Head | None = None, tokenizer: str | os.PathLike[str] | None = None
) -> ExportSource:
    """Take a model apart.

    Args:
        model: A `BertEncoder`, its `.mlm`, one of the `BertFor...` models, a directory or hub repository
            with a Hugging Face checkpoint, or an `ExportSource`.
        head: What stands on the encoder; by default what the model or `config.json` says.
        tokenizer: Directory with `vocab.txt`; by default the checkpoint's.

    Raises:
        ValueError: The model is none of these.
        CheckpointError: The checkpoint is damaged, or a tensor holds NaN or more than float16 can.
    """
    if head is not None:
        head_outputs(head)  # refuses an unknown one
    directory = None if tokenizer is None else Path(tokenizer).expanduser()
    if directory is not None and not (directory / "vocab.txt").is_file():
        raise FileNotFoundError(
            f"{directory} holds no vocab.txt; give the directory of the model's tokenizer"
        )
    if isinstance(model, ExportSource):
        source = model
    elif isinstance(model, (str, os.PathLike)):
        source = _from_directory(model, head)
    else:
        source = _from_keras(model)
    if head is not None and head != source.head:
        source = ExportSource(source.config, source.state, head, source.tokenizer)
    if directory is not None:
        source = ExportSource(
            source.config, source.state, source.head, directory, source.reference, source.reference_name
        )
    check_numbers(source.state)
    return source


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


def _from_directory(model: str | os.PathLike[str], head: Head | None) -> ExportSource:
    directory = local_directory(model, _WANTED)
    config = BertConfig.from_json(directory / "config.json", source="huggingface")
    state = to_state(read_tensors(directory), config)
    if head is None:
        head = _head_in(directory / "config.json")
    from tfbert_npu.weights.names import encoder_rows, pooler_rows

    rows = [*encoder_rows(config), *(pooler_rows(config) if has_pooler(state, config) else ())]
    check_state(state, rows, config)
    has_vocabulary = (directory / "vocab.txt").is_file()
    return ExportSource(config, state, head, directory if has_vocabulary else None)


def _head_in(path: Path) -> Head:
    architectures = json.loads(path.read_text(encoding="utf-8-sig")).get("architectures") or ["BertModel"]
    name = str(architectures[0])
    for prefix in ("DistilBert", "Bert"):
        if name.startswith(prefix) and name.removeprefix(prefix) in _HEAD_OF_CLASS:
            return _HEAD_OF_CLASS[name.removeprefix(prefix)]
    return "encoder"


def _from_keras(model: Any) -> ExportSource:
    encoder_module = sys.modules.get("tfbert_npu.encoder")
    if encoder_module is None:  # then it cannot be one of ours
        raise ValueError(_strange(model))
    from tfbert_npu.mlm import MaskedLMEncoder
    from tfbert_npu.weights.variables import extract, rows_of

    if isinstance(model, encoder_module.BertEncoder):
        model.build()
        state = extract(model, [row for row in rows_of(model) if not row.attribute.startswith("mlm_head.")])
        return ExportSource(model.config, state, "encoder", None, _keras_reference(model), "tensorflow")
    if isinstance(model, MaskedLMEncoder):
        model.build()
        return ExportSource(model.encoder.config, extract(model.encoder, rows_of(model.encoder)), "masked_lm")
    raise ValueError(_strange(model))


def _strange(model: Any) -> str:
    return (
        f"a {type(model).__name__} cannot be exported; give a BertEncoder, one of the BertFor... models, "
        "or the directory of a checkpoint"
    )


def tensorflow_reference(source: ExportSource) -> ExportSource:
    """The source with our Keras encoder as its reference, if it has none and TensorFlow is installed.

    A head without a Keras model here keeps none; its reference is then ONNX in float32.
    """
    if source.reference is not None or source.head != "encoder":
        return source
    try:
        from tfbert_npu.encoder import BertEncoder
    except ImportError:
        return source
    from tfbert_npu.weights.variables import assign, rows_of

    pooler = has_pooler(source.state, source.config)
    encoder = BertEncoder(source.config, add_pooler=pooler, dtype="float32")
    encoder.build()
    assign(encoder, rows_of(encoder), source.state)
    return ExportSource(
        source.config, source.state, source.head, source.tokenizer, _keras_reference(encoder), "tensorflow"
    )


def _keras_reference(encoder: Any) -> Reference:
    from keras.ops import convert_to_numpy

    def call(inputs: Mapping[str, np.ndarray]) -> dict[str, Any]:
        outputs = encoder(dict(inputs), training=False)
        named = {name: convert_to_numpy(outputs[name]) for name in ("pooled_output", "sequence_output")}
        for index, value in enumerate(outputs["encoder_outputs"]):
            named[f"encoder_outputs_{index}"] = convert_to_numpy(value)
        return named

    return call
