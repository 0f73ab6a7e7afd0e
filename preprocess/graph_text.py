"""UTF-8 texts to code points and back, as TensorFlow operations."""

from __future__ import annotations

from typing import NamedTuple

import tensorflow as tf


class Characters(NamedTuple):
    """Code points of a batch of texts.

    Attributes:
        points: int32 [N], the texts end to end.
        splits: int64 [B + 1], where each text starts and ends.
        sources: int32 [N], index of the character of the input that each came from; None where not asked
            for.
        source_ends: int32 [N], one past the last character of the input that each came from, or None.
    """

    points: tf.Tensor
    splits: tf.Tensor
    sources: tf.Tensor | None
    source_ends: tf.Tensor | None


def decode(texts: tf.Tensor) -> Characters:
    """Code points of UTF-8 texts, U+FFFD for what is not UTF-8: string [B]."""
    decoded = tf.raw_ops.UnicodeDecode(
        input=texts,
        input_encoding="UTF-8",
        errors="replace",
        replacement_char=0xFFFD,
        replace_control_characters=False,
    )
    return Characters(decoded.char_values, decoded.row_splits, None, None)


def encode(characters: Characters) -> tf.Tensor:
    """UTF-8 texts of code points: string [B]."""
    return tf.raw_ops.UnicodeEncode(
        input_values=characters.points,
        input_splits=characters.splits,
        errors="replace",
        output_encoding="UTF-8",
        replacement_char=0xFFFD,
    )


class DecodedText(NamedTuple):
    """Code points and the bytes that they came from.

    Attributes:
        characters: The code points.
        starts: int64 [N], offset of the first byte in its text.
        limits: int64 [N], offset after the last byte.
    """

    characters: Characters
    starts: tf.Tensor
    limits: tf.Tensor


def decode_aligned(texts: tf.Tensor) -> DecodedText:
    """As `decode`, with byte offsets."""
    decoded = tf.raw_ops.UnicodeDecodeWithOffsets(
        input=texts,
        input_encoding="UTF-8",
        errors="replace",
        replacement_char=0xFFFD,
        replace_control_characters=False,
    )
    starts, splits = decoded.char_to_byte_starts, decoded.row_splits
    rows = tf.ragged.row_splits_to_segment_ids(splits)
    ends_row = tf.concat([rows[1:] != rows[:-1], [True]], 0)[: tf.size(starts)]
    text_lengths = tf.cast(tf.strings.length(texts), tf.int64)
    limits = tf.where(ends_row, tf.gather(text_lengths, rows), tf.concat([starts[1:], starts[:1]], 0))
    return DecodedText(Characters(decoded.char_values, splits, None, None), starts, limits)
