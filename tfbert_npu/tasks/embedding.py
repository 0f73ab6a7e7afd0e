"""Texts to vectors: run an encoder over batches of similar length and pool its outputs."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal, TypeVar, get_args, overload

import numpy as np

from tfbert_npu.tasks.loading import TaskModel
from tfbert_npu.tasks.running import as_function, listed
from tfbert_npu.tasks.sentence_encoder import SentenceEncoder

Pooling = Literal["mean", "cls", "pooler"]
Arrays = Mapping[str, np.ndarray]
Encode = Callable[[Arrays], Arrays]
"""The three inputs, int32 [B, S], to `pooled_output` [B, H] and `sequence_output` [B, S, H]."""

_Item = TypeVar("_Item")

# Sorting by length needs many batches to choose from; this many texts still are little memory.
_BATCHES_PER_WINDOW = 32
# A graph compiled for a length serves all lengths up to it: few lengths, few compilations, little padding.
_LENGTH_MULTIPLE = 16


def pool(outputs: Arrays, mask: np.ndarray, pooling: Pooling) -> np.ndarray:
    """One vector per text.

    Args:
        outputs: `pooled_output` [B, H] and `sequence_output` [B, S, H].
        mask: int [B, S], 1 for tokens and 0 for padding.
        pooling: `"mean"`: the mean of the tokens' hidden states, [CLS] and [SEP] included, as
            sentence-transformers takes it; `"cls"`: the first token's hidden state; `"pooler"`: the
            pooler's output.

    Returns:
        float32 [B, H]. A text without any token has the zero vector under `"mean"`.
    """
    if pooling not in get_args(Pooling):
        raise ValueError(f"pooling must be one of {', '.join(get_args(Pooling))}, got {pooling!r}")
    if pooling == "pooler":
        return np.asarray(outputs["pooled_output"], np.float32)
    states = np.asarray(outputs["sequence_output"], np.float32)
    if pooling == "cls":
        return states[:, 0]
    weights = mask.astype(np.float32)[..., None]
    return (states * weights).sum(axis=1) / np.maximum(weights.sum(axis=1), 1)


@overload
def embed(
    texts: TaskModel,
    encoder: str | Sequence[str],
    /,
    *,
    pooling: Pooling | None = None,
    normalize: bool | None = None,
    seq_length: int | None = None,
    batch_size: int = 32,
) -> np.ndarray: ...
@overload
def embed(
    texts: Iterable[str],
    encoder: Any,
    tokenizer: Callable[..., dict[str, np.ndarray]],
    *,
    pooling: Pooling | None = None,
    normalize: bool | None = None,
    seq_length: int | None = None,
    batch_size: int = 32,
) -> np.ndarray: ...
def embed(
    texts: Any,
    encoder: Any,
    tokenizer: Any = None,
    *,
    pooling: Pooling | None = None,
    normalize: bool | None = None,
    seq_length: int | None = None,
    batch_size: int = 32,
) -> np.ndarray:
    """Embed texts: `embed(model, texts)` of what `load` gave, or `embed(texts, encoder, tokenizer)`.

    Args:
        texts: Any number of texts.
        encoder: A `BertEncoder`, or any function from the three inputs to the encoder's outputs in numpy.
        tokenizer: A `BertTokenizer`.
        pooling: See `pool`. By default as the files of a loaded model say, see `SentenceEncoder`; else
            `"mean"`.
        normalize: Scale each vector to length 1, so that a dot product is a cosine; by default as the files
            say, else not.
        seq_length: Tokens per text at most; the rest of a longer text is cut off. By default as the files
            say, else 128.
        batch_size: Texts per call of the encoder.

    Returns:
        float32 [N, H], in the order of the texts.
    """
    if isinstance(texts, TaskModel):
        model, given = SentenceEncoder.of(texts), listed(encoder)
        model.max_seq_length = min(seq_length or model.max_seq_length, model.longest)
        if pooling is None:
            return model.encode(given, normalize=normalize, batch_size=batch_size)
        texts, encoder, tokenizer, seq_length = given, model.run, model.tokenizer, model.max_seq_length
    pooling, length = pooling or "mean", seq_length or 128
    chunks = embed_stream(
        texts,
        encoder,
        tokenizer,
        pooling=pooling,
        normalize=bool(normalize),
        seq_length=length,
        batch_size=batch_size,
    )
    vectors = list(chunks)
    if not vectors:
        return pool(_run(as_function(encoder), tokenizer([], seq_length=length)), np.zeros((0, 1)), pooling)
    return np.concatenate(vectors)


def embed_stream(
    texts: Iterable[str],
    encoder: Any,
    tokenizer: Callable[..., dict[str, np.ndarray]],
    *,
    pooling: Pooling = "mean",
    normalize: bool = False,
    seq_length: int = 128,
    batch_size: int = 32,
) -> Iterator[np.ndarray]:
    """Embed a stream of texts, holding only a window of it in memory.

    Yields:
        float32 [n, H] for the next n texts, in their order. See `embed` for the arguments.
    """
    if pooling not in get_args(Pooling):
        raise ValueError(f"pooling must be one of {', '.join(get_args(Pooling))}, got {pooling!r}")
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, got {batch_size}")
    encode = as_function(encoder)
    for window in _windows(texts, batch_size * _BATCHES_PER_WINDOW):
        inputs = tokenizer(window, seq_length=seq_length)
        vectors = _embed_window(encode, inputs, batch_size, pooling)
        if normalize:
            vectors /= np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
        yield vectors


def _embed_window(encode: Encode, inputs: Arrays, batch_size: int, pooling: Pooling) -> np.ndarray:
    lengths = inputs["input_mask"].sum(axis=1)
    # Texts of like length together, longest first, so that what does not fit in memory fails at once.
    order = np.argsort(-lengths, kind="stable")
    rows: list[np.ndarray] = []
    for start in range(0, len(order), batch_size):
        chosen = order[start : start + batch_size]
        width = _round_up(int(lengths[chosen].max()), inputs["input_mask"].shape[1])
        batch = {name: value[chosen, :width] for name, value in inputs.items()}
        rows.append(pool(_run(encode, batch), batch["input_mask"], pooling))
    vectors = np.concatenate(rows)
    result = np.empty_like(vectors)
    result[order] = vectors
    return result


def _run(encode: Encode, inputs: Arrays) -> Arrays:
    return encode({name: np.ascontiguousarray(value) for name, value in inputs.items()})


def _round_up(length: int, most: int) -> int:
    return min(most, -(-max(length, 1) // _LENGTH_MULTIPLE) * _LENGTH_MULTIPLE)


def _windows(items: Iterable[_Item], size: int) -> Iterator[Sequence[_Item]]:
    iterator = iter(items)
    while window := list(itertools.islice(iterator, size)):
        yield window
