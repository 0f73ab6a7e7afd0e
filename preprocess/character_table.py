"""The per-character rules as integer tables, shrunk to what a vocabulary can tell apart.

A word with a character that no piece contains is `[UNK]` whatever that character is, so all such
characters become one, `unknown`. What is left is small: two levels of 256-entry blocks, most of them
shared, over a pool of the strings that characters turn into.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from tfbert_npu.preprocess.characters import (
    CJK_RANGES,
    CharacterRules,
    final_sigma_context,
    is_cjk,
    is_removed,
)
from tfbert_npu.preprocess.options import TextOptions

CODE_POINTS = 0x110000
_BLOCK = 256

# Layout of an entry of the main table.
LENGTH_BITS = 5
START_BITS = 21
REMOVED_BIT = 1 << 27
REORDERS_BIT = 1 << 28
CASED_BIT = 1 << 29
SKIPPED_BIT = 1 << 30

# Ideographs that neither lower-casing nor decomposition changes; compatibility ideographs are the others.
PLAIN_CJK = tuple(r for r in CJK_RANGES if r[0] not in (0xF900, 0x2F800))


@dataclass(frozen=True)
class BlockTable:
    """An int32 for every code point: `blocks[pages[point >> 8], point & 255]`.

    Attributes:
        pages: int32 [4352], block of each 256 code points.
        blocks: int32 [n, 256], distinct blocks.
    """

    pages: np.ndarray
    blocks: np.ndarray

    @classmethod
    def from_dense(cls, values: np.ndarray) -> BlockTable:
        """Compress int32 [0x110000]."""
        rows = values.astype(np.int32).reshape(-1, _BLOCK)
        known: dict[bytes, int] = {}
        pages = [known.setdefault(row.tobytes(), len(known)) for row in rows]
        blocks = np.frombuffer(b"".join(known), np.int32).reshape(-1, _BLOCK)
        return cls(np.array(pages, np.int32), blocks)


@dataclass(frozen=True)
class CharacterTable:
    """What each code point becomes, and how it acts on its neighbors.

    Attributes:
        entries: Packed: bits 0-4 length and 5-25 start, in `pool`, of what the code point becomes;
            `REMOVED_BIT`: cleaning drops it;
            `REORDERS_BIT`: it is or holds a combining mark that survives, whose order matters;
            `CASED_BIT` and `SKIPPED_BIT`: see `characters.final_sigma_context`.
        pool: int32 code points.
        decompositions: Packed as `entries`: canonical decomposition into `decomposition_pool`.
        decomposition_pool: int32 code points.
        combining_classes: Canonical combining class.
    """

    entries: BlockTable
    pool: np.ndarray
    decompositions: BlockTable
    decomposition_pool: np.ndarray
    combining_classes: BlockTable


class _Pool:
    """Strings end to end, each once, known by a packed start and length."""

    def __init__(self) -> None:
        self._packed: dict[str, int] = {}
        self._points: list[int] = []

    def add(self, text: str) -> int:
        packed = self._packed.get(text)
        if packed is None:
            start, length = len(self._points), len(text)
            if length >= 1 << LENGTH_BITS or start + length >= 1 << START_BITS:
                raise ValueError(f"the normalization of one character does not fit the table: {text!r}")
            self._points.extend(map(ord, text))
            packed = self._packed[text] = start << LENGTH_BITS | length
        return packed

    def points(self) -> np.ndarray:
        return np.array(self._points, np.int32)


@lru_cache(maxsize=1)
def ruled_points() -> tuple[int, ...]:
    """Code points that any rule can change: all but unassigned, private and plain CJK ones."""
    ruled = np.fromiter(
        (unicodedata.category(chr(point)) not in ("Cn", "Co") for point in range(CODE_POINTS)),
        bool,
        CODE_POINTS,
    )
    for first, last in CJK_RANGES:
        ruled[first : last + 1] = (first, last) not in PLAIN_CJK
    return tuple(np.flatnonzero(ruled).tolist())


@lru_cache(maxsize=8)
def expansions(options: TextOptions) -> Mapping[int, str]:
    """Code points outside the plain CJK blocks that do not stay as they are, and what they become."""
    expand = CharacterRules(options).expand
    found = {}
    for point in ruled_points():
        char = chr(point)
        expanded = expand(char)
        if expanded != char:
            found[point] = expanded
    return found


@lru_cache(maxsize=1)
def _sigma_flags() -> Mapping[int, int]:
    found = {}
    for point in ruled_points():
        cased, skipped = final_sigma_context(chr(point))
        if cased or skipped:
            found[point] = CASED_BIT if cased else SKIPPED_BIT
    return found


@lru_cache(maxsize=1)
def _marks() -> tuple[Mapping[int, int], Mapping[int, str], frozenset[int]]:
    """Combining classes; decompositions that hold a mark; code points whose decomposition keeps one."""
    classes, decompositions, keep = {}, {}, set()
    for point in ruled_points():
        char = chr(point)
        if combining_class := unicodedata.combining(char):
            classes[point] = combining_class
        decomposed = unicodedata.normalize("NFD", char)
        marks = [mark for mark in decomposed if unicodedata.combining(mark)]
        if marks and decomposed != char:
            decompositions[point] = decomposed
        if any(unicodedata.category(mark) != "Mn" for mark in marks):
            keep.add(point)
    return classes, decompositions, frozenset(keep)


def build_character_table(
    options: TextOptions,
    known: Collection[str],
    unknown: str,
    spelling: Mapping[str, str],
    marks: Collection[str] = (),
) -> CharacterTable:
    """Tables for one vocabulary.

    Args:
        options: The switches.
        known: Characters that occur in some piece.
        unknown: Stands for every other character; itself not `known`.
        spelling: Other characters that stand for some of the known ones.
        marks: Further characters that stay, each as a word of its own.
    """
    respelled = {ord(" "): " ", **{ord(char): spelling.get(char, char) for char in known}}

    def spell(text: str) -> str:
        return "".join([respelled.get(ord(char), unknown) for char in text])

    pool = _Pool()
    entries = np.full(CODE_POINTS, pool.add(unknown), np.int32)
    entries[ord(" ")] = pool.add(" ")
    if options.tokenize_chinese_chars:
        for first, last in CJK_RANGES:
            entries[first : last + 1] = pool.add(f" {unknown} ")
    for char in known:
        alone = options.tokenize_chinese_chars and is_cjk(char)
        entries[ord(char)] = pool.add(spell(f" {char} " if alone else char))
    _assign(entries, expansions(options), pool, spell)
    for mark in marks:
        entries[ord(mark)] = pool.add(f" {mark} ")
    entries[[point for point in ruled_points() if is_removed(chr(point))]] |= REMOVED_BIT
    if options.lower_case:
        for point, flag in _sigma_flags().items():
            entries[point] |= flag
    classes, decompositions, keep = _marks()
    if options.strips_accents:
        entries[list(keep)] |= REORDERS_BIT

    decomposition_pool = _Pool()
    decomposed = np.zeros(CODE_POINTS, np.int32)  # length 0: stays as it is
    _assign(decomposed, decompositions, decomposition_pool, str)
    dense_classes = np.zeros(CODE_POINTS, np.int32)
    dense_classes[list(classes)] = list(classes.values())
    return CharacterTable(
        BlockTable.from_dense(entries),
        pool.points(),
        BlockTable.from_dense(decomposed),
        decomposition_pool.points(),
        BlockTable.from_dense(dense_classes),
    )


def _assign(
    entries: np.ndarray, expansions: Mapping[int, str], pool: _Pool, spell: Callable[[str], str]
) -> None:
    for point, expanded in expansions.items():
        entries[point] = pool.add(spell(expanded))


def marks_that_stay() -> frozenset[int]:
    """Code points that are, or decompose to, a combining mark that accent stripping leaves (it is no Mn)."""
    return _marks()[2]
