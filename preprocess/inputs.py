"""Whatever a caller holds, checked and made into the tensors that the layers take."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf


def checked_length(seq_length: Any, segments: int) -> int:
    """`seq_length` as an integer with room for the special tokens around `segments` segments."""
    try:
        length = operator.index(seq_length)  # also of an eager tensor
    except TypeError:
        length = None
    if length is None or isinstance(seq_length, bool):
        raise ValueError(f"seq_length must be an integer, not {seq_length!r}")
    seq_length = length
    if seq_length < segments + 1:
        raise ValueError(
            f"seq_length={seq_length} has no room for the {segments + 1} special tokens; "
            f"use at least {segments + 1}"
        )
    return seq_length


def as_segments(inputs: Any) -> Any:
    """One tensor or a list of one or two, checked; tensors of Keras and of graphs pass through."""
    if not isinstance(inputs, (list, tuple)) or not inputs or not _holds_a_batch(inputs[0]):
        return as_texts(inputs)
    if len(inputs) > 2:
        raise ValueError(
            f"BERT takes one or two segments, not {len(inputs)}; pass [first] or [first, second]"
        )
    segments = [as_texts(segment) for segment in inputs]
    sizes = {segment.shape[0] for segment in segments} - {None}
    if len(sizes) > 1:
        first, second = (segment.shape[0] for segment in segments)
        raise ValueError(f"the segments have {first} and {second} texts; give one second text per first")
    return segments


def _holds_a_batch(item: Any) -> bool:
    return isinstance(item, (list, tuple, np.ndarray, keras.KerasTensor)) or tf.is_tensor(item)


def as_texts(texts: Any) -> Any:
    """A string tensor [B] of whatever holds texts; tensors of Keras and of graphs pass through."""
    if isinstance(texts, keras.KerasTensor):
        dtype, rank = keras.backend.standardize_dtype(texts.dtype), len(texts.shape)
    else:
        if not tf.is_tensor(texts):
            texts = _text_tensor(texts)
        dtype, rank = texts.dtype.name, texts.shape.rank
    if dtype != "string":
        raise ValueError(f"expected texts, a string tensor [batch], but got dtype {dtype}")
    if rank not in (None, 1):
        raise ValueError(f"expected texts of shape [batch], but got rank {rank}; wrap one text in a list")
    return texts


def _text_tensor(texts: Any) -> Any:
    if isinstance(texts, np.ndarray):
        texts = texts.tolist()
    if isinstance(texts, (str, bytes)):
        raise ValueError("expected a batch of texts, not one text; wrap it in a list")
    if not isinstance(texts, Sequence):
        raise ValueError(f"expected a string tensor or a list of texts, not {type(texts).__name__}")
    for index, text in enumerate(texts):
        if not isinstance(text, (str, bytes)):
            raise ValueError(f"text {index} is not a str or bytes but {type(text).__name__}")
    # A lone surrogate stands for bytes that are not UTF-8.
    encoded = [text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text for text in texts]
    return tf.constant(encoded, tf.string, shape=[len(encoded)])


def as_ragged_segments(inputs: Any) -> list[Any]:
    """A list of one or two ragged integer tensors [B, pieces] or [B, words, pieces]."""
    if not isinstance(inputs, (list, tuple)) or not inputs or not _holds_a_batch(inputs[0]):
        raise ValueError("expected a list of one or two segments of word pieces, such as [pieces]")
    if len(inputs) > 2:
        raise ValueError(
            f"BERT takes one or two segments, not {len(inputs)}; pass [first] or [first, second]"
        )
    segments = [as_ragged(segment) for segment in inputs]
    for segment in segments:
        if len(segment.shape) not in (2, 3):
            raise ValueError(
                f"expected word pieces of shape [batch, pieces] or [batch, words, pieces], "
                f"but got rank {len(segment.shape)}"
            )
    return segments


def as_ragged(ids: Any) -> Any:
    """Integers as a RaggedTensor of rank at least 2; symbolic tensors of Keras pass through."""
    if isinstance(ids, keras.KerasTensor):
        dtype = keras.backend.standardize_dtype(ids.dtype)
    else:
        if not tf.is_tensor(ids):
            ids = tf.ragged.constant(ids.tolist() if isinstance(ids, np.ndarray) else ids, dtype=tf.int32)
        if not isinstance(ids, tf.RaggedTensor):
            if ids.shape.rank is None or ids.shape.rank < 2:
                raise ValueError(f"expected word pieces [batch, pieces], but got shape {ids.shape}")
            ids = tf.RaggedTensor.from_tensor(ids, ragged_rank=ids.shape.rank - 1)
        dtype = ids.dtype.name
    if dtype not in ("int32", "int64"):
        raise ValueError(f"expected word pieces as int32 or int64, but got dtype {dtype}")
    return ids
