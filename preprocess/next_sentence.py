"""Next-sentence-prediction pairs inside a graph (Devlin et al., "BERT", NAACL 2019, section 3.1)."""

from __future__ import annotations

from typing import Any, NamedTuple

import tensorflow as tf


class SentencePairs(NamedTuple):
    """Pairs of sentences.

    Attributes:
        first: string [N].
        second: string [N].
        labels: int32 [N], 0 where `second` follows `first` in its document, 1 where it is random.
    """

    first: tf.Tensor
    second: tf.Tensor
    labels: tf.Tensor


def next_sentence_pairs(documents: tf.RaggedTensor, seed: Any, random_rate: float = 0.5) -> SentencePairs:
    """Every sentence but the last of each document with its successor or a random sentence.

    A random sentence comes from another document of the batch, each of their sentences being as likely.

    Args:
        documents: Sentences by document, ragged string [D, sentences], in order.
        seed: Two integers, [2]; equal seeds give equal pairs.
        random_rate: Share of random second sentences.

    Raises:
        ValueError: `documents` is not a ragged string tensor of rank 2, or `random_rate` not a share.
        tf.errors.InvalidArgumentError: Only one document of the batch has sentences, so that there is no
            other to draw from.

    Example:
        >>> import tensorflow as tf
        >>> from tfbert_npu import next_sentence_pairs
        >>> documents = tf.ragged.constant([["A cat.", "It sat."], ["A dog.", "It ran."]])
        >>> pairs = next_sentence_pairs(documents, seed=(1, 2), random_rate=0.0)
        >>> pairs.first.numpy().tolist(), pairs.second.numpy().tolist()
        ([b'A cat.', b'A dog.'], [b'It sat.', b'It ran.'])
    """
    if (
        not isinstance(documents, tf.RaggedTensor)
        or documents.shape.rank != 2
        or documents.dtype != tf.string
    ):
        raise ValueError("documents must be a ragged string tensor [documents, sentences]")
    if not 0 <= random_rate <= 1:
        raise ValueError(f"random_rate={random_rate} must be between 0 and 1")
    sentences, splits = documents.values, documents.row_splits
    rows = documents.value_rowids()
    first = tf.where(rows[1:] == rows[:-1])[:, 0]
    rows = tf.gather(rows, first)
    starts, ends = tf.gather(splits, rows), tf.gather(splits, rows + 1)
    elsewhere = tf.size(sentences, tf.int64) - (ends - starts)
    which_seed, sentence_seed = tf.unstack(tf.random.split(seed, 2, alg="philox"))
    is_random = tf.random.stateless_uniform(tf.shape(first), which_seed, alg="philox") < random_rate
    tf.debugging.assert_equal(
        tf.reduce_any(is_random & (elsewhere == 0)),
        False,
        "next_sentence_pairs draws random sentences from other documents: batch at least two of them",
    )
    # The integer below `elsewhere` skips over the sentence's own document.
    draw = tf.random.stateless_uniform(
        tf.shape(first), sentence_seed, minval=None, maxval=None, dtype=tf.uint32, alg="philox"
    )
    draw = tf.cast(draw, tf.int64) % tf.maximum(elsewhere, 1)
    other = tf.where(draw >= starts, draw + ends - starts, draw)
    second = tf.where(is_random, tf.minimum(other, tf.size(sentences, tf.int64) - 1), first + 1)
    return SentencePairs(
        tf.gather(sentences, first), tf.gather(sentences, second), tf.cast(is_random, tf.int32)
    )
