"""Several texts in one row: which go together, what the compiled file is given, and their outputs apart.

A text sees itself alone: the additive attention bias [1, S, S] is block-diagonal, and positions begin at 0.
So a row costs the same as one text that fills it (Krell et al. 2021, arXiv:2107.02027).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from tfbert_npu.artifact.embeddings import MASK_BIAS, HostEmbeddings

FREE_LENGTH = 128
"""Tokens of a row where the backend takes any length; a longer text makes its row as long as itself."""

# Below the bias of padding, so that a text without any real token spreads over its own places alone.
_OTHER_TEXT = 2 * MASK_BIAS


@dataclass(frozen=True)
class Pack:
    """The texts of one row."""

    rows: np.ndarray
    """Their numbers in the request, int [n]."""
    starts: np.ndarray
    """Where each begins in the row, int [n]."""
    lengths: np.ndarray
    """Their tokens, int [n]."""
    width: int
    """Tokens of the row, padding included."""


def pack(lengths: Sequence[int] | np.ndarray, widths: Sequence[int]) -> list[Pack]:
    """Put texts into few rows: the longest first, each into the fullest row that still has room for it.

    Args:
        lengths: Tokens of each text, none more than the widest row.
        widths: Rows that there are; empty for any. Each row is as narrow as its texts allow.

    Returns:
        The rows in the order in which they were begun; every text is in one of them.
    """
    lengths = np.asarray(lengths)
    if not len(lengths):
        return []
    widest = max(widths) if widths else max(FREE_LENGTH, int(lengths.max()))
    bins: list[list[int]] = []
    # For each number of free places, the rows that have it.
    room: list[list[int]] = [[] for _ in range(widest + 1)]
    for row in np.argsort(-lengths, kind="stable"):
        length = int(lengths[row])
        free = next((size for size in range(length, widest + 1) if room[size]), None)
        if free is None:
            bins.append([])
            index, free = len(bins) - 1, widest
        else:
            index = room[free].pop()
        bins[index].append(int(row))
        room[free - length].append(index)
    packs = []
    for members in bins:
        rows = np.array(members, np.intp)
        sizes = lengths[rows].astype(np.intp)
        ends = np.cumsum(sizes)
        width = min((width for width in widths if width >= ends[-1]), default=-(-int(ends[-1]) // 16) * 16)
        packs.append(Pack(rows, ends - sizes, sizes, width))
    return packs


def feed(host: HostEmbeddings, inputs: Mapping[str, np.ndarray], one: Pack) -> dict[str, np.ndarray]:
    """What the file takes for one row.

    Args:
        host: The embedding tables.
        inputs: The request, int32 [B, S] under TF-Hub's names.
        one: The texts of the row.

    Returns:
        `embeddings` float32 [1, width, H] and `attention_bias` float32 [1, width, width].

    Raises:
        ValueError: An id is outside of its table.
    """
    flat = {name: np.zeros((1, one.width), np.int32) for name in ("input_word_ids", "input_type_ids")}
    positions = np.zeros(one.width, np.intp)
    text = np.full(one.width, -1)
    real = np.zeros(one.width, bool)
    for number, (row, start, length) in enumerate(zip(one.rows, one.starts, one.lengths, strict=True)):
        place = slice(start, start + length)
        for name, value in flat.items():
            if name in inputs:
                value[0, place] = inputs[name][row, :length]
        positions[place] = np.arange(length)
        text[place] = number
        real[place] = inputs["input_mask"][row, :length] != 0
    bias = np.where(real, np.float32(0), np.float32(MASK_BIAS))
    bias = np.where(text[:, None] == text, bias, np.float32(_OTHER_TEXT))
    return {"embeddings": host.summed(flat, positions), "attention_bias": bias[None]}


def apart(packs: Sequence[Pack], parts: Sequence[np.ndarray], batch: int, length: int) -> np.ndarray:
    """One output of the request, float32 [B, S, ...], from those of its rows [1, width, ...]."""
    whole = np.zeros((batch, length, *parts[0].shape[2:]) if parts else (batch, length), np.float32)
    for one, part in zip(packs, parts, strict=True):
        for row, start, size in zip(one.rows, one.starts, one.lengths, strict=True):
            kept = min(size, length)
            whole[row, :kept] = part[0, start : start + kept]
    return whole
