"""Words of a text with their places in it, their word pieces, and windows over long sequences of them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from tfbert_npu.preprocess import BertTokenizer

# Boundaries that BERT's basic tokenizer makes too, so that the pieces of the parts are the pieces of the
# whole: white space, ASCII punctuation, CJK ideographs (tokenization.py, _is_chinese_char).
_ASCII_SPACE = " \t\n\r"
_SPACE = _ASCII_SPACE + "\u00a0\u1680\u2000-\u200a\u202f\u205f\u3000"
_PUNCTUATION = r"!-/:-@\[-`{-~"
_CJK = (
    "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0002a6df\U0002a700-\U0002b73f"
    "\U0002b740-\U0002b81f\U0002b820-\U0002ceaf\U0002f800-\U0002fa1f"
)


@dataclass(frozen=True)
class Word:
    """A stretch of text and its pieces.

    `start` and `end` are character indices of the text as the user gave it: `text[start:end]` is the word.
    """

    ids: tuple[int, ...]
    start: int
    end: int


def words_of(tokenizer: BertTokenizer, text: str) -> list[Word]:
    """The words of `text` that have pieces; put together they are `tokenizer.encode(text)`."""
    options = tokenizer.options
    # tensorflow-text leaves a no-break space inside of a word.
    space = _SPACE if options.dialect == "bert" else _ASCII_SPACE
    single = _PUNCTUATION + (_CJK if options.tokenize_chinese_chars else "")
    words = []
    for match in re.finditer(f"[{single}]|[^{space}{single}]+", text):
        ids = tuple(tokenizer.encode(match[0]))
        if ids:
            words.append(Word(ids, match.start(), match.end()))
    return words


def given_words(tokenizer: BertTokenizer, words: Sequence[str]) -> list[Word]:
    """Words that are given as such, every one with at least one piece; `start` and `end` are its index."""
    return [
        Word(tuple(tokenizer.encode(word)) or (tokenizer.vocabulary.unk_id,), index, index + 1)
        for index, word in enumerate(words)
    ]


def windows(sizes: Sequence[int], room: int, overlap: int = 0) -> list[tuple[int, int]]:
    """Ranges of items that fit into `room`, each beginning about `overlap` before the end of the last.

    Args:
        sizes: Number of pieces of each item; an item larger than `room` gets a range of its own.
        room: Most pieces of one range.
        overlap: Pieces that a range shares with the one before it.

    Raises:
        ValueError: There is no room, or the overlap fills it.
    """
    if room < 1 or not 0 <= overlap < room:
        raise ValueError(f"an overlap of {overlap} pieces needs a room of more than that, got {room}")
    ranges = []
    start = 0
    while True:
        end, used = start, 0
        while end < len(sizes) and (end == start or used + sizes[end] <= room):
            used += sizes[end]
            end += 1
        ranges.append((start, end))
        if end >= len(sizes):
            return ranges
        # Go back over whole items, but never as far as this range's beginning.
        following, shared = end, 0
        while following - 1 > start and shared + sizes[following - 1] <= overlap:
            following -= 1
            shared += sizes[following]
        start = following


def centre_most(ranges: Sequence[tuple[int, int]], count: int) -> list[int]:
    """For each item the number of the range in which it stands farthest from an end."""
    best, depth = [0] * count, [-1] * count
    for number, (start, end) in enumerate(ranges):
        for item in range(start, end):
            margin = min(item - start, end - 1 - item)
            if margin > depth[item]:
                best[item], depth[item] = number, margin
    return best
