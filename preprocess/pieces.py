"""What the graph tokenizers of both dialects give."""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

import tensorflow as tf


class Pieces(NamedTuple):
    """Word pieces of a batch of texts.

    Attributes:
        ids: int32 [N], the texts end to end.
        splits: int64 [B + 1], where each text starts and ends.
    """

    ids: tf.Tensor
    splits: tf.Tensor


class AlignedPieces(NamedTuple):
    """Word pieces by word, with the bytes of the text that they stand for; ragged [B, words, pieces].

    Attributes:
        ids: int32.
        starts: int64, offset of the first byte.
        limits: int64, offset after the last byte.
    """

    ids: tf.RaggedTensor
    starts: tf.RaggedTensor
    limits: tf.RaggedTensor


class GraphTokenizer(Protocol):
    """Texts to word pieces inside a graph, in one dialect."""

    @property
    def resources(self) -> list[Any]:
        """TensorFlow resources that a SavedModel of this tokenizer must track."""

    def tokenize(self, texts: tf.Tensor) -> Pieces:
        """Word pieces of texts: string [B]."""

    def tokenize_words(self, texts: tf.Tensor) -> tf.RaggedTensor:
        """Word pieces by word: string [B] to int32 [B, words, pieces]."""

    def tokenize_aligned(self, texts: tf.Tensor) -> AlignedPieces:
        """Word pieces by word, with byte offsets."""
