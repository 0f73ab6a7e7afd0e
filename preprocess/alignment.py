"""Words of a text together with the characters of the text that they came from, on the host."""

from __future__ import annotations

import unicodedata
from functools import lru_cache
from typing import NamedTuple

from tfbert_npu.preprocess.characters import CAPITAL_SIGMA, FINAL_SIGMA, CharacterRules, is_removed
from tfbert_npu.preprocess.options import TextOptions


class AlignedWord(NamedTuple):
    """A normalized word.

    Attributes:
        text: Its characters.
        starts: For each, the index of the character of the original text that it came from.
        ends: For each, one past the last such index.
    """

    text: str
    starts: list[int]
    ends: list[int]


class Aligner:
    """`BertNormalizer.words` with alignment.

    Args:
        options: Switches; the dialect is `"bert"`.
    """

    def __init__(self, options: TextOptions):
        self._options = options
        self._expand = lru_cache(maxsize=1 << 16)(CharacterRules(options).expand)

    def words(self, text: str) -> list[AlignedWord]:
        """The words of `text`, aligned with it."""
        chars = list(text)
        starts, ends = list(range(len(chars))), list(range(1, len(chars) + 1))
        if self._options.lower_case and CAPITAL_SIGMA in text:
            _make_sigmas_final(chars)
        if self._options.strips_accents and any(map(_holds_surviving_mark, chars)):
            chars, starts, ends = _in_canonical_order(chars, starts, ends)
        words: list[AlignedWord] = []
        word = AlignedWord("", [], [])
        spelled: list[str] = []
        for char, start, end in zip(chars, starts, ends, strict=True):
            for part in self._expand(char):
                if part != " ":
                    spelled.append(part)
                    word.starts.append(start)
                    word.ends.append(end)
                elif spelled:
                    words.append(word._replace(text="".join(spelled)))
                    word, spelled = AlignedWord("", [], []), []
        if spelled:
            words.append(word._replace(text="".join(spelled)))
        return words


def _make_sigmas_final(chars: list[str]) -> None:
    """Replace each capital sigma that `str.lower` would make a final one, in the cleaned text."""
    rules = CharacterRules(TextOptions())
    kept = [(index, rules.clean(char)) for index, char in enumerate(chars)]
    lowered = "".join(cleaned for _, cleaned in kept).lower()
    position = 0
    for index, cleaned in kept:
        if cleaned == CAPITAL_SIGMA and lowered[position] == FINAL_SIGMA:
            chars[index] = FINAL_SIGMA
        position += sum(len(char.lower()) for char in cleaned)


@lru_cache(maxsize=1 << 12)
def _holds_surviving_mark(char: str) -> bool:
    return any(
        unicodedata.combining(part) and unicodedata.category(part) != "Mn"
        for part in unicodedata.normalize("NFD", char)
    )


def _in_canonical_order(
    chars: list[str], starts: list[int], ends: list[int]
) -> tuple[list[str], list[int], list[int]]:
    """Decompose, and put the marks after each starter in canonical order.

    Where marks change places each one came from anywhere among them, so that spans stay in order.
    """
    runs: list[list[tuple[int, str, int, int]]] = []
    for char, start, end in zip(chars, starts, ends, strict=True):
        if is_removed(char):
            continue
        for part in unicodedata.normalize("NFD", char):
            combining_class = unicodedata.combining(part)
            if combining_class == 0 or not runs:
                runs.append([])
            runs[-1].append((combining_class, part, start, end))
    ordered: list[tuple[int, str, int, int]] = []
    for run in runs:
        sorted_run = sorted(run, key=lambda item: item[0])
        if sorted_run != run:
            marks = [item for item in run if item[0]]
            first, last = min(item[2] for item in marks), max(item[3] for item in marks)
            sorted_run = [(k, part, first, last) if k else (k, part, s, e) for k, part, s, e in sorted_run]
        ordered += sorted_run
    return [x[1] for x in ordered], [x[2] for x in ordered], [x[3] for x in ordered]
