"""Word pieces to BERT's fixed-length inputs inside a graph, by ranges of one array."""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf

from tfbert_npu.preprocess.options import Trimming
from tfbert_npu.preprocess.pieces import Pieces
from tfbert_npu.preprocess.trimming import trim_pair
from tfbert_npu.preprocess.vocabulary import Vocabulary


def pack(
    segments: Sequence[Pieces],
    seq_length: int,
    vocabulary: Vocabulary,
    trimming: Trimming,
    closes_empty: bool = False,
) -> dict[str, tf.Tensor]:
    """`[CLS] a [SEP]` or `[CLS] a [SEP] b [SEP]`, padded with `[PAD]`.

    A second text without word pieces counts as none, as in Google's run_classifier.py.

    Args:
        segments: One or two segments of B rows each.
        seq_length: L, at least the number of special tokens.
        vocabulary: Knows the special tokens.
        trimming: How two segments share the room.
        closes_empty: Put a `[SEP]` after an empty second text as well, as TF-Hub's preprocessors do.

    Returns:
        `input_word_ids`, `input_mask`, `input_type_ids`, int32 [B, L].
    """
    splits = [tf.cast(segment.splits, tf.int32) for segment in segments]
    starts = [split[:-1] for split in splits]
    lengths = [split[1:] - split[:-1] for split in splits]
    budget = seq_length - 1 - len(segments)
    if len(segments) == 1:
        kept = [tf.minimum(lengths[0], budget)]
    else:
        tf.debugging.assert_equal(
            tf.size(starts[0]), tf.size(starts[1]), "the two segments have different numbers of texts"
        )
        kept = list(trim_pair(trimming, lengths[0], lengths[1], budget, tf.minimum, tf.maximum))
        if not closes_empty:
            kept[0] = tf.where(lengths[1] > 0, kept[0], tf.minimum(lengths[0], budget + 1))

    # [CLS] and [SEP] stand before the pieces, so that a row is a few ranges of one array.
    flat = tf.concat([[vocabulary.cls_id, vocabulary.sep_id], *(segment.ids for segment in segments)], 0)
    one = tf.ones_like(starts[0])
    range_starts, range_lengths = [tf.zeros_like(one)], [one]
    closed = [one] * len(segments)
    if len(segments) == 2 and not closes_empty:
        closed[1] = tf.cast(lengths[1] > 0, tf.int32)
    base = 2
    for segment, start, length, end in zip(segments, starts, kept, closed, strict=True):
        range_starts += [start + base, one]
        range_lengths += [length, end]
        base += tf.size(segment.ids)
    first = tf.reshape(tf.stack(range_starts, 1), [-1])
    ranges = tf.raw_ops.RaggedRange(
        starts=first, limits=first + tf.reshape(tf.stack(range_lengths, 1), [-1]), deltas=1, Tsplits=tf.int64
    )
    word_ids = tf.raw_ops.RaggedTensorToTensor(
        shape=tf.constant([-1, seq_length]),
        values=tf.gather(flat, ranges.rt_dense_values),
        default_value=vocabulary.pad_id,
        row_partition_tensors=[ranges.rt_nested_splits[:: len(range_starts)]],
        row_partition_types=["ROW_SPLITS"],
    )
    column = tf.range(seq_length)[None, :]
    first_end = kept[0][:, None] + 1  # column of the first [SEP]
    if len(segments) == 1:
        mask = column <= first_end
        type_ids = tf.zeros_like(word_ids)
    else:
        mask = column <= first_end + (kept[1] + closed[1])[:, None]
        type_ids = tf.cast((column > first_end) & mask, tf.int32)
    return {
        "input_word_ids": tf.ensure_shape(word_ids, [None, seq_length]),
        "input_mask": tf.cast(mask, tf.int32),
        "input_type_ids": type_ids,
    }
