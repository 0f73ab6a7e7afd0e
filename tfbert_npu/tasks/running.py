"""Running a model of any kind over many rows: Keras heads and numpy sessions alike."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np

from tfbert_npu.config import BertConfig
from tfbert_npu.inputs import MLM_POSITIONS, check_inputs
from tfbert_npu.preprocess import BertTokenizer

Inputs = dict[str, np.ndarray]
Outputs = dict[str, np.ndarray]
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
        ValueError: Neither names any.
    """
    if labels is not None:
        return tuple(labels)
    config = getattr(model, "config", None)
    if config is None:
        raise ValueError("the model carries no label names; pass labels=")
    return tuple(config.id2label or ("LABEL_0", "LABEL_1"))


def length_for(model: Any, seq_length: int | None, default: int = 128) -> int:
    """The longest row to make: `seq_length`, else an artifact's longest compiled shape, else `default`."""
    if seq_length is not None:
        return seq_length
    shapes = getattr(model, "shapes", ())
    return max((length for _, length in shapes), default=default)


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
