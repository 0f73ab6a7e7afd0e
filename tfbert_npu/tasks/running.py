"""Running a model of any kind over many rows: Keras heads and numpy sessions alike."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeVar, cast

import numpy as np

from tfbert_npu.config import BertConfig, ProblemType
from tfbert_npu.errors import TaskError
from tfbert_npu.heads import HeadSpec, head_named
from tfbert_npu.inputs import MLM_POSITIONS, check_inputs
from tfbert_npu.preprocess import BertTokenizer

Inputs = dict[str, np.ndarray]
Outputs = dict[str, np.ndarray]
Arrays = Mapping[str, np.ndarray]
T = TypeVar("T")

# Rows are padded to a multiple of this, so that a graph is traced for few lengths.
_PAD_TO = 16


def as_tokenizer(preprocessor: Any) -> BertTokenizer:
    """The host tokenizer with the vocabulary and the options of a `BertPreprocessor` or `BertTokenizer`.

    Raises:
        ValueError: It is neither.
    """
    if isinstance(preprocessor, BertTokenizer):
        return preprocessor
    if hasattr(preprocessor, "vocabulary") and hasattr(preprocessor, "options"):
        return BertTokenizer(preprocessor.vocabulary, preprocessor.options)
    raise ValueError(
        f"the preprocessor must be a BertPreprocessor or a BertTokenizer, not {type(preprocessor).__name__}"
    )


def labels_of(model: Any, labels: Sequence[str] | None) -> tuple[str, ...]:
    """The label names: `labels`, else those of the model's configuration.

    Raises:
        TaskError: Neither names any.
    """
    if labels is not None:
        return tuple(labels)
    config = getattr(model, "config", None)
    if config is None:
        raise TaskError("the model carries no label names", "pass labels=")
    return tuple(config.id2label or ("LABEL_0", "LABEL_1"))


def check_labels(scores: int, names: Sequence[str]) -> None:
    """Make sure that a model which gives that many scores has that many labels.

    Raises:
        TaskError: It has not.
    """
    if scores != len(names):
        raise TaskError(
            f"the model scores {scores} labels but {len(names)} are named",
            "pass labels=, or name them in id2label of its config.json",
        )


def problem_type_of(model: Any) -> ProblemType:
    """What a model's labels are: its own `problem_type`, its configuration's, or what its labels suggest."""
    config = getattr(model, "config", None)
    own = getattr(config, "problem_type", None)
    if own is not None:
        return cast(ProblemType, own)
    return "regression" if getattr(config, "num_labels", 2) == 1 else "single_label_classification"


def head_of(model: Any) -> HeadSpec | None:
    """What stands on a model's encoder, if it is a loaded model, a Keras head or an artifact that says so."""
    for name in ("head", "spec"):
        head = getattr(model, name, None)
        if isinstance(head, HeadSpec):
            return head
    manifest = getattr(model, "manifest", None)
    try:
        return None if manifest is None else head_named(manifest.head)
    except ValueError:  # a functional model of the user's own, or somebody else's file
        return None


def check_command(model: Any, command: str | None) -> None:
    """Make sure that a model's head is for a command.

    Raises:
        TaskError: It is for another one; says which.
    """
    check_head(
        getattr(model, "name", None) or getattr(model, "directory", "the model"), head_of(model), command
    )


def check_head(name: object, head: HeadSpec | None, command: str | None) -> None:
    """`check_command` of a model that is not loaded yet."""
    if head is None or command is None or command in head.commands:
        return
    if not head.commands and not head.causal:
        return  # a head of the user's own: its outputs will tell
    fits = ", ".join(head.commands) or "no command"
    raise TaskError(f"{name} has the head {head.name}, which is for {fits}, not for {command}")


def scores_of(outputs: Arrays, *names: str) -> np.ndarray:
    """The first of these outputs that a model gives.

    Raises:
        TaskError: It gives none of them.
    """
    for name in names:
        if name in outputs:
            return outputs[name]
    raise TaskError(
        f"the model gives {', '.join(outputs)} and no {names[0]}",
        "take a model, or export one, that gives it",
    )


def length_for(model: Any, seq_length: int | None, default: int = 128) -> int:
    """The longest row to make: `seq_length`, else an artifact's longest compiled shape, else `default`.

    The same on every backend, and no longer than the model has positions for.
    """
    positions = getattr(getattr(model, "config", None), "max_position_embeddings", None)
    if seq_length is not None:
        return min(seq_length, positions or seq_length)
    npu = getattr(model, "npu", None) or model
    manifest = getattr(npu, "manifest", None)
    shapes = [shape for file in manifest.rknn_files for shape in file.shapes] if manifest is not None else ()
    longest = max((length for _, length in shapes or getattr(npu, "shapes", ())), default=default)
    return min(longest, positions or longest)


def listed(texts: str | Sequence[T]) -> Sequence[str | T]:
    """One text as a list of one: it would be taken for a list of its characters."""
    return [texts] if isinstance(texts, str) else texts


def run(
    model: Any,
    rows: Sequence[Sequence[int]],
    types: Sequence[Sequence[int]] | None = None,
    *,
    batch_size: int = 32,
    pad_id: int = 0,
    positions: Sequence[Sequence[int]] | None = None,
    keep: Callable[[int, Outputs], Outputs] = lambda row, outputs: outputs,
) -> Iterator[Outputs]:
    """Run a model over rows of word ids.

    Args:
        model: A head, or a callable (or an object's `run`) from the three inputs, int32 [B, S], to an array
            or a dict of arrays.
        rows: Word ids with their special tokens.
        types: Token types, as long as the rows; 0 by default.
        batch_size: Rows per call.
        pad_id: Id of `[PAD]`.
        positions: The places of each row at which a masked language model gives scores, instead of at all.
        keep: Called with a row's number and its outputs as soon as they are there; what it gives is held
            until the row's turn. By default everything, which for a vocabulary's scores is megabytes a row.

    Yields:
        For each row, in order, its outputs by name, without the batch axis; a single unnamed output is
        called `logits`. Positions beyond the row's length are padding's.
    """
    # Rows of like length go together; the order is restored below.
    order = sorted(range(len(rows)), key=lambda index: len(rows[index]))
    results: list[Outputs] = [{} for _ in rows]
    for first in range(0, len(order), batch_size):
        chosen = order[first : first + batch_size]
        inputs = pad([rows[i] for i in chosen], None if types is None else [types[i] for i in chosen], pad_id)
        if positions is not None:
            most = max(len(positions[i]) for i in chosen)
            asked = [[*positions[i], *[0] * (most - len(positions[i]))] for i in chosen]
            inputs[MLM_POSITIONS] = np.array(asked, np.int32)
        outputs = call(model, inputs)
        for place, index in enumerate(chosen):
            results[index] = keep(index, {name: array[place] for name, array in outputs.items()})
    yield from results


def pad(rows: Sequence[Sequence[int]], types: Sequence[Sequence[int]] | None, pad_id: int) -> Inputs:
    """The three inputs, int32 [B, S], with S the longest row rounded up to a multiple of 16."""
    length = -(-max(map(len, rows)) // _PAD_TO) * _PAD_TO
    word_ids = np.full((len(rows), length), pad_id, np.int32)
    mask = np.zeros_like(word_ids)
    type_ids = np.zeros_like(word_ids)
    for index, row in enumerate(rows):
        word_ids[index, : len(row)] = row
        mask[index, : len(row)] = 1
        if types is not None:
            type_ids[index, : len(row)] = types[index]
    return {"input_word_ids": word_ids, "input_mask": mask, "input_type_ids": type_ids}


def call(model: Any, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """One call of a model, as float32 numpy arrays by name."""
    # A Keras model's predict_on_batch is compiled; calling the model would run it op by op. A
    # `runtime.Backend` is not called but run.
    function: Callable[..., Any] = getattr(model, "predict_on_batch", None) or (
        model if callable(model) else model.run
    )
    config = getattr(model, "config", None)
    positions = getattr(config, "max_position_embeddings", None)
    if positions is not None and inputs["input_word_ids"].shape[-1] > positions:
        inputs = {name: array[..., :positions] for name, array in inputs.items()}
    if isinstance(config, BertConfig) and inputs["input_word_ids"].ndim == 2:
        # Inside of a graph nobody looks at ids, and a gather may answer with another word's row.
        inputs = check_inputs(inputs, config, mlm=MLM_POSITIONS in inputs)
    outputs = function(dict(inputs))
    if not isinstance(outputs, Mapping):
        outputs = {"logits": outputs}
    # Under a distribution strategy every replica answers, one after the other, the same.
    rows = len(inputs["input_word_ids"])
    return {name: np.asarray(array, dtype=np.float32)[:rows] for name, array in outputs.items()}


def softmax(logits: np.ndarray, axis: int = -1) -> np.ndarray:
    """Probabilities, float64."""
    logits = logits.astype(np.float64)
    exponentials = np.exp(logits - logits.max(axis=axis, keepdims=True))
    return exponentials / exponentials.sum(axis=axis, keepdims=True)


def as_function(encoder: Any) -> Callable[[Arrays], Arrays]:
    """A Keras encoder as a function from numpy to numpy, compiled once for every batch and length.

    Of a loaded model its `run`; anything else is taken for such a function already.
    """
    if not hasattr(encoder, "compute_output_spec"):
        return encoder if callable(encoder) else encoder.run
    import tensorflow as tf

    @tf.function(reduce_retracing=True)
    def call(inputs: Any) -> Any:
        outputs = encoder(inputs, training=False)
        return {name: outputs[name] for name in ("pooled_output", "sequence_output")}

    def encode(inputs: Arrays) -> Arrays:
        outputs = call({name: tf.constant(value) for name, value in inputs.items()})
        return {name: value.numpy() for name, value in outputs.items()}

    return encode
