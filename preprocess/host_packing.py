"""Word pieces to BERT's fixed-length inputs on the host, in numpy."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import Literal, NamedTuple

import numpy as np

from tfbert_npu.preprocess.options import Trimming
from tfbert_npu.preprocess.trimming import trim_pair
from tfbert_npu.preprocess.vocabulary import Vocabulary

Padding = Literal["fixed", "longest"]


class Segment(NamedTuple):
    """Word pieces of one text.

    Attributes:
        ids: Their ids.
        offsets: For each, (start, end) in the text; empty where not asked for.
    """

    ids: Sequence[int]
    offsets: Sequence[tuple[int, int]] = ()

    def cut(self, start: int, end: int) -> Segment:
        """The pieces from `start` to `end`."""
        return Segment(self.ids[start:end], self.offsets[start:end])


class Row(NamedTuple):
    """One row of a batch: its one or two segments, and the text that it is (a window) of."""

    segments: tuple[Segment, ...]
    text_index: int


def trimmed_rows(
    firsts: Sequence[Segment],
    seconds: Sequence[Segment] | None,
    seq_length: int,
    trimming: Trimming,
    closes_empty: bool = False,
) -> list[Row]:
    """One row for each text, or pair of texts, trimmed to `seq_length` with its special tokens.

    A second text without word pieces counts as none, see `graph_packing.pack`, unless `closes_empty`.
    """
    if seconds is None:
        return [Row((first.cut(0, seq_length - 2),), index) for index, first in enumerate(firsts)]
    rows: list[Row] = []
    for index, (first, second) in enumerate(zip(firsts, seconds, strict=True)):
        if not second.ids and not closes_empty:
            rows.append(Row((first.cut(0, seq_length - 2),), index))
            continue
        kept = trim_pair(trimming, len(first.ids), len(second.ids), seq_length - 3, min, max)
        rows.append(Row((first.cut(0, kept[0]), second.cut(0, kept[1])), index))
    return rows


def windowed_rows(
    firsts: Sequence[Segment], seconds: Sequence[Segment] | None, seq_length: int, stride: int
) -> list[Row]:
    """As many rows for each text as it needs: windows over the last segment that share `stride` pieces.

    Raises:
        ValueError: A first segment leaves the windows no more than `stride` pieces.
    """
    rows: list[Row] = []
    for index, long in enumerate(firsts if seconds is None else seconds):
        before = () if seconds is None else (firsts[index],)
        room = seq_length - 2 - sum(len(segment.ids) + 1 for segment in before)
        if room <= stride:
            raise ValueError(
                f"seq_length={seq_length} leaves windows of {max(room, 0)} pieces for text {index}, which "
                f"must exceed stride={stride}; raise seq_length, lower stride or shorten the first text"
            )
        starts = range(0, max(len(long.ids) - stride, 1), room - stride)
        rows.extend(Row((*before, long.cut(start, start + room)), index) for start in starts)
    return rows


def pack_rows(
    rows: Sequence[Row],
    seq_length: int,
    vocabulary: Vocabulary,
    *,
    padding: Padding = "fixed",
    pad_to_multiple_of: int | None = None,
    offsets: bool = False,
) -> dict[str, np.ndarray]:
    """`[CLS] a [SEP]` or `[CLS] a [SEP] b [SEP]` for each row, padded with `[PAD]`.

    Returns:
        `input_word_ids`, `input_mask`, `input_type_ids`, int32 [rows, L], and with `offsets` int32
        [rows, L, 2], zero for special tokens and padding. L is `seq_length`, or with
        `padding="longest"` the longest row's length, made a multiple but not beyond `seq_length`.
    """
    cls_id, sep_id = vocabulary.cls_id, vocabulary.sep_id
    ids = [[cls_id, *chain.from_iterable((*segment.ids, sep_id) for segment in row.segments)] for row in rows]
    lengths = np.fromiter(map(len, ids), np.int32, len(ids))[:, None]
    width = seq_length
    if padding == "longest":
        width = int(lengths.max(initial=2))
        if pad_to_multiple_of:
            width = min(-(-width // pad_to_multiple_of) * pad_to_multiple_of, seq_length)
    column = np.arange(width, dtype=np.int32)
    mask = column < lengths
    word_ids = np.full(mask.shape, vocabulary.pad_id, np.int32)
    word_ids[mask] = np.fromiter(chain.from_iterable(ids), np.int32, int(lengths.sum()))
    first_ends = np.fromiter((len(row.segments[0].ids) + 1 for row in rows), np.int32, len(rows))
    packed = {
        "input_word_ids": word_ids,
        "input_mask": mask.astype(np.int32),
        "input_type_ids": (mask & (column > first_ends[:, None])).astype(np.int32),
    }
    if offsets:
        spans = np.zeros((*mask.shape, 2), np.int32)
        for number, row in enumerate(rows):
            at = 1
            for segment in row.segments:
                if segment.offsets:
                    spans[number, at : at + len(segment.offsets)] = segment.offsets
                at += len(segment.offsets) + 1
        packed["offsets"] = spans
    return packed
