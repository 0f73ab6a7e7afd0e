"""Placement of rows on compiled shapes."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tfbert_npu import BertConfig, BertTokenizer
from tfbert_npu.rknn.options import buckets
from tfbert_npu.runtime.router import place, real_lengths

shapes = st.lists(st.tuples(st.integers(1, 9), st.integers(1, 64)), max_size=6, unique=True)


@given(shapes, st.data(), st.integers(1, 3))
def test_every_row_once_and_where_it_fits(
    shapes: list[tuple[int, int]], data: st.DataObject, cores: int
) -> None:
    longest = max((length for _, length in shapes), default=100)
    lengths = data.draw(st.lists(st.integers(1, longest), max_size=40))
    placements = place(lengths, shapes, cores)
    rows = [int(row) for placement in placements for row in placement.rows]
    assert sorted(rows) == list(range(len(lengths)))
    for placement in placements:
        assert not shapes or placement.shape in shapes
        assert len(placement.rows) <= placement.shape[0]
        assert max(lengths[row] for row in placement.rows) <= placement.shape[1]


def test_small_batches_are_padded_and_large_ones_split() -> None:
    assert [p.shape for p in place([10] * 3, [(4, 16)], 1)] == [(4, 16)]
    assert [p.shape for p in place([10] * 8, [(1, 16), (4, 16)], 1)] == [(4, 16)] * 2
    # Three rows on three cores: three calls side by side, instead of one with padding.
    assert [p.shape for p in place([10] * 3, [(1, 16), (4, 16)], 3)] == [(1, 16)] * 3
    assert [p.shape for p in place([10, 100, 20], [(1, 16), (1, 32), (1, 128)], 1)] == [
        (1, 128),
        (1, 32),
        (1, 16),
    ]


def test_lengths() -> None:
    mask = np.array([[1, 1, 0, 0], [1, 1, 1, 1], [0, 1, 0, 0], [0, 0, 0, 0]])
    # A row without tokens is full: it must not depend on where it is computed.
    np.testing.assert_array_equal(real_lengths(mask), [2, 4, 2, 4])
    for row, length in zip(mask, [2, 4, 2, 4], strict=True):  # one row goes another way
        np.testing.assert_array_equal(real_lengths(row[None]), [length])


@pytest.mark.parametrize("batch", [1, 8, 64])
def test_little_padding_on_real_sentences(shared: Path, minilm: Path, batch: int) -> None:
    """Customers' questions: with a fixed length of 256, 10 to 20 times the real tokens are computed."""
    with open(shared / "data" / "cls" / "banking77" / "train.csv", encoding="utf-8") as stream:
        texts = [row["text"] for row in csv.DictReader(stream)][:2000]
    shapes = buckets(BertConfig.from_json(minilm / "config.json"))
    mask = BertTokenizer.from_pretrained(minilm)(texts, seq_length=256)["input_mask"]
    real = int(mask.sum())
    computed = 0
    for start in range(0, len(texts), batch):
        lengths = real_lengths(mask[start : start + batch])
        computed += sum(placement.computed_tokens for placement in place(lengths, shapes, 3))
    print(f"batch {batch}: {computed / real:.2f} times the real tokens, fixed {mask.size / real:.1f}")
    assert computed <= 1.4 * real
    assert mask.size > 5 * real
