"""Word pieces to BERT's fixed-length inputs inside a graph, by one gather instead of ragged operations."""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf

from tfbert_npu.preprocess.graph_tokenizer import Pieces
from tfbert_npu.preprocess.options import Trimming
from tfbert_npu.preprocess.trimming import trim_pair
from tfbert_npu.preprocess.vocabulary import Vocabulary


def pack(
    segments: Sequence[Pieces], seq_length: int, vocabulary: Vocabulary, trimming: Trimming
) -> dict[str, tf.Tensor]:
    """`[CLS] a [SEP]` or `[CLS] a [SEP] b [SEP]`, padded with `[PAD]`.

    Args:
        segments: One or two segments of B rows each.
        seq_length: L, at least the number of special tokens.
        vocabulary: Knows the special tokens.
        trimming: How two segments share the room.

    Returns:
        `input_word_ids`, `input_mask`, `input_type_ids`, int32 [B, L].
    """
    column = tf.range(seq_length)[None, :]
    starts = [tf.cast(segment.splits[:-1, None], tf.int32) for segment in segments]
    lengths = [
        tf.cast(segment.splits[1:, None], tf.int32) - start
        for segment, start in zip(segments, starts, strict=True)
    ]
    budget = seq_length - 1 - len(segments)
    if len(segments) == 2:
        tf.debugging.assert_equal(
            tf.size(starts[0]), tf.size(starts[1]), "the two segments have different numbers of texts"
        )
    if len(segments) == 1:
        kept = [tf.minimum(lengths[0], budget)]
    else:
        kept = list(trim_pair(trimming, lengths[0], lengths[1], budget, tf.minimum, tf.maximum))

    cls_id, sep_id, pad_id = vocabulary.cls_id, vocabulary.sep_id, vocabulary.pad_id
    # [CLS], [SEP] and [PAD] stand before the pieces, so that one gather finds everything.
    flat = tf.concat([[cls_id, sep_id, pad_id], *(segment.ids for segment in segments)], 0)
    base = 3
    first_end = kept[0] + 1  # column of the first [SEP]
    index = starts[0] + (base - 1) + column
    end = first_end
    type_ids = tf.zeros_like(index)
    if len(segments) == 2:
        base += tf.size(segments[0].ids)
        index = tf.where(column > first_end, starts[1] + base - 1 - first_end + column, index)
        end = first_end + kept[1] + 1
        type_ids = tf.cast((column > first_end) & (column <= end), tf.int32)
    index = tf.where((column == first_end) | (column == end), 1, index)
    index = tf.where(column > end, 2, index)
    index = tf.where(column == 0, 0, index)
    return {
        "input_word_ids": tf.gather(flat, index),
        "input_mask": tf.cast(column <= end, tf.int32),
        "input_type_ids": type_ids,
    }
