"""Google's BasicTokenizer as TensorFlow operations: text to spaced-out text, exact for any input.

The result holds the words of `BertNormalizer.words` with spaces between them, spelled in the alphabet of
`CharacterTable`. Rare matters (a capital sigma, a surviving combining mark, a word beyond the length
limit) stand behind `tf.cond`, so that text without them does not pay for them.
"""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf

from tfbert_npu.preprocess.character_table import (
    CASED_BIT,
    LENGTH_BITS,
    REMOVED_BIT,
    REORDERS_BIT,
    SKIPPED_BIT,
    START_BITS,
    BlockTable,
    CharacterTable,
)
from tfbert_npu.preprocess.characters import CAPITAL_SIGMA, FINAL_SIGMA, MAX_WORD_CHARACTERS
from tfbert_npu.preprocess.graph_text import Characters, decode, encode

_SPACE = 0x20
_NUL = 0  # cleaning removes it, so that writing it removes a character
_LENGTH_MASK = (1 << LENGTH_BITS) - 1
_START_MASK = (1 << START_BITS) - 1


class GraphNormalizer:
    """In-graph normalization of text.

    Args:
        table: What characters become.
        unknown: The character that stands for all those of no piece.
        special_tokens: Special tokens allowed in text, each with the character that replaces it.
    """

    def __init__(self, table: CharacterTable, unknown: str, special_tokens: Sequence[tuple[str, str]] = ()):
        self._entries = _GraphTable(table.entries)
        self._pool = tf.constant(table.pool)
        self._decompositions = _GraphTable(table.decompositions)
        self._decomposition_pool = tf.constant(table.decomposition_pool)
        self._combining_classes = _GraphTable(table.combining_classes)
        self._has_sigma = bool((table.entries.blocks & CASED_BIT).any())
        self._has_reordering = bool((table.entries.blocks & REORDERS_BIT).any())
        self._unknown = ord(unknown)
        self._special_tokens = [([ord(char) for char in token], ord(mark)) for token, mark in special_tokens]

    def normalize(self, texts: tf.Tensor) -> tf.Tensor:
        """Spaced-out text: string [B] to string [B]."""
        return encode(self._run(decode(texts), aligned=False))

    def normalize_aligned(self, characters: Characters) -> Characters:
        """Spaced-out characters that know the input characters they came from."""
        return self._run(characters, aligned=True)

    def _run(self, text: Characters, aligned: bool) -> Characters:
        points, splits = text.points, text.splits
        count = tf.size(points)
        sources = tf.range(count) if aligned else None
        ends = tf.range(1, count + 1) if aligned else None
        if self._special_tokens:
            points, ends = self._with_special_tokens(points, splits, ends)
        if self._has_sigma:
            sigma = ord(CAPITAL_SIGMA)
            points = tf.cond(
                tf.reduce_any(points == sigma),
                lambda: self._with_final_sigmas(points, splits),
                lambda: points,
            )
        packed = self._entries(points)
        if self._has_reordering:
            if aligned:
                points, splits, sources, ends = tf.cond(
                    tf.reduce_any(packed & REORDERS_BIT != 0),
                    lambda: self._reordered(points, splits, sources, ends),
                    lambda: (points, splits, sources, ends),
                )
                packed = self._entries(points)
            else:
                packed, splits = tf.cond(
                    tf.reduce_any(packed & REORDERS_BIT != 0),
                    lambda: self._reordered_entries(points, splits),
                    lambda: (packed, splits),
                )
        starts = tf.bitwise.right_shift(packed, LENGTH_BITS) & _START_MASK
        expansion = tf.raw_ops.RaggedRange(
            starts=starts, limits=starts + (packed & _LENGTH_MASK), deltas=1, Tsplits=tf.int64
        )
        points = tf.gather(self._pool, expansion.rt_dense_values)
        splits = tf.gather(expansion.rt_nested_splits, splits)
        if aligned:
            parents = tf.ragged.row_splits_to_segment_ids(expansion.rt_nested_splits)
            sources, ends = tf.gather(sources, parents), tf.gather(ends, parents)
        return self._limit_words(Characters(points, splits, sources, ends))

    def _with_special_tokens(
        self, points: tf.Tensor, splits: tf.Tensor, ends: tf.Tensor | None
    ) -> tuple[tf.Tensor, tf.Tensor | None]:
        """Special tokens made one character each, and NULs after it, which cleaning removes."""
        text, count = points, tf.size(points)
        rows = tf.ragged.row_splits_to_segment_ids(splits)
        for token, mark in self._special_tokens:
            # The mark in the user's own text is just another private-use character.
            points = tf.where(text == mark, self._unknown, points)
            length = len(token)
            ahead = tf.concat([text, tf.zeros([length], tf.int32)], 0)
            same_row = tf.concat([rows, tf.fill([length], tf.constant(-1, rows.dtype))], 0)
            found = same_row[length - 1 : length - 1 + count] == rows
            for offset, point in enumerate(token):
                found &= ahead[offset : offset + count] == point
            behind = tf.concat([tf.zeros([length - 1], tf.bool), found], 0)
            for offset in range(1, length):
                points = tf.where(behind[length - 1 - offset : length - 1 - offset + count], _NUL, points)
            points = tf.where(found, mark, points)
            if ends is not None:
                ends = tf.where(found, ends + (length - 1), ends)
        return points, ends

    def _with_final_sigmas(self, points: tf.Tensor, splits: tf.Tensor) -> tf.Tensor:
        """Capital sigmas that end a word made final ones: Unicode's Final_Sigma, as in `str.lower`."""
        flags = self._entries(points)
        rows = tf.ragged.row_splits_to_segment_ids(splits)
        kept = tf.where(flags & SKIPPED_BIT == 0)[:, 0]
        cased = tf.gather(flags & CASED_BIT != 0, kept)
        kept_rows = tf.gather(rows, kept)
        # A neighbor counts if cased and in the same text.
        joined = kept_rows[1:] == kept_rows[:-1]
        edge = tf.zeros_like(cased[:1])
        after_cased = tf.concat([edge, joined & cased[:-1]], 0)
        before_cased = tf.concat([joined & cased[1:], edge], 0)
        final = (tf.gather(points, kept) == ord(CAPITAL_SIGMA)) & after_cased & ~before_cased
        where = tf.boolean_mask(kept, final)
        return tf.tensor_scatter_nd_update(points, where[:, None], tf.fill(tf.shape(where), ord(FINAL_SIGMA)))

    def _reordered_entries(self, points: tf.Tensor, splits: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        unused = tf.zeros_like(points)
        points, splits, _, _ = self._reordered(points, splits, unused, unused)
        return self._entries(points), splits

    def _reordered(
        self, points: tf.Tensor, splits: tf.Tensor, sources: tf.Tensor, ends: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor]:
        """Characters cleaned, those with marks decomposed, and all marks in canonical order.

        Expansion of the result equals the expansion of NFD: lower-casing and decomposition commute.
        """
        keep = self._entries(points) & REMOVED_BIT == 0  # what cleaning removes does not part marks
        rows = tf.shape(splits, tf.int64)[0] - 1
        row_of = tf.ragged.row_splits_to_segment_ids(splits)
        points, sources, ends, row_of = (tf.boolean_mask(x, keep) for x in (points, sources, ends, row_of))

        packed = self._decompositions(points)
        starts, lengths = tf.bitwise.right_shift(packed, LENGTH_BITS), packed & _LENGTH_MASK
        # A character without decomposition is its own: read from beyond the end of the pool.
        size = tf.size(self._decomposition_pool)
        own = tf.range(tf.size(points)) + size
        starts, lengths = tf.where(lengths > 0, starts, own), tf.maximum(lengths, 1)
        expansion = tf.raw_ops.RaggedRange(starts=starts, limits=starts + lengths, deltas=1, Tsplits=tf.int64)
        parents = tf.ragged.row_splits_to_segment_ids(expansion.rt_nested_splits)
        points = tf.gather(tf.concat([self._decomposition_pool, points], 0), expansion.rt_dense_values)
        sources, ends, row_of = (tf.gather(x, parents) for x in (sources, ends, row_of))

        classes = self._combining_classes(points)
        # A run is a starter and the marks after it; a text starts a run.
        new_row = tf.concat([[True], row_of[1:] != row_of[:-1]], 0)[: tf.size(row_of)]
        runs = tf.cumsum(tf.cast((classes == 0) | new_row, tf.int64))
        order = tf.argsort(runs * 256 + tf.cast(classes, tf.int64), stable=True)
        # Where marks changed places, each one came from anywhere in the run.
        moved = tf.cast(order != tf.range(tf.size(order)), tf.int32)
        run_count = tf.reduce_max(tf.concat([runs, [0]], 0)) + 1
        run_moved = tf.gather(tf.math.unsorted_segment_max(moved, runs, run_count), runs) > 0
        is_mark = classes > 0
        mark_runs = tf.where(is_mark, runs, 0)
        first = tf.gather(tf.math.unsorted_segment_min(sources, mark_runs, run_count), runs)
        last = tf.gather(tf.math.unsorted_segment_max(ends, mark_runs, run_count), runs)
        sources = tf.where(run_moved & is_mark, first, sources)
        ends = tf.where(run_moved & is_mark, last, ends)
        splits = tf.searchsorted(row_of, tf.range(rows + 1), out_type=tf.int64)
        return tf.gather(points, order), splits, tf.gather(sources, order), tf.gather(ends, order)

    def _limit_words(self, text: Characters) -> Characters:
        """Words beyond the length limit replaced by the unknown character, which makes them [UNK]."""
        longest = tf.reduce_max(tf.concat([text.splits[1:] - text.splits[:-1], [0]], 0))
        aligned = text.sources is not None
        sources = text.sources if aligned else tf.zeros([0], tf.int32)
        ends = text.source_ends if aligned else tf.zeros([0], tf.int32)

        def limited() -> tuple[tf.Tensor, ...]:
            count = tf.size(text.points)
            rows = tf.ragged.row_splits_to_segment_ids(text.splits)
            space = text.points == _SPACE
            starts_row = tf.concat([[True], rows[1:] != rows[:-1]], 0)[:count]
            # Spaces and the rows' starts both begin a new word; a space is a word of one character here.
            after_space = tf.concat([[True], space[:-1]], 0)[:count]
            words = tf.cumsum(tf.cast(space | starts_row | after_space, tf.int32)) - 1
            word_count = tf.reduce_max(tf.concat([words, [-1]], 0)) + 1
            lengths = tf.math.unsorted_segment_sum(tf.ones_like(words), words, word_count)
            long = tf.gather(lengths > MAX_WORD_CHARACTERS, words)
            first = tf.concat([[True], words[1:] != words[:-1]], 0)[:count]
            points = tf.where(long & first, self._unknown, text.points)
            keep = ~long | first
            kept_before = tf.cumsum(tf.cast(keep, tf.int64))
            splits = tf.gather(tf.concat([[tf.constant(0, tf.int64)], kept_before], 0), text.splits)
            if not aligned:
                return tf.boolean_mask(points, keep), splits, sources, ends
            word_ends = tf.gather(tf.math.unsorted_segment_max(ends, words, word_count), words)
            whole_ends = tf.where(long, word_ends, ends)
            return tuple(
                [tf.boolean_mask(points, keep), splits]
                + [tf.boolean_mask(x, keep) for x in (sources, whole_ends)]
            )

        points, splits, sources, ends = tf.cond(
            longest > MAX_WORD_CHARACTERS, limited, lambda: (text.points, text.splits, sources, ends)
        )
        return Characters(points, splits, sources if aligned else None, ends if aligned else None)


class _GraphTable:
    """Look-up in a `BlockTable`."""

    def __init__(self, table: BlockTable):
        self._pages = tf.constant(table.pages * table.blocks.shape[1])
        self._values = tf.constant(table.blocks.reshape(-1))

    def __call__(self, points: tf.Tensor) -> tf.Tensor:
        return tf.gather(
            self._values, tf.gather(self._pages, tf.bitwise.right_shift(points, 8)) + (points & 255)
        )
