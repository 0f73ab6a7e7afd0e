"""Where tensorflow-text's fast WordPiece kernel cuts words, found by asking it.

The kernel has its own tables of white space, punctuation and ideographs, of the Unicode version that it
was built with. Characters on which it agrees with the original tokenizer need no normalisation.
"""

from __future__ import annotations

import string
from collections.abc import Iterable, Sequence
from functools import lru_cache

import numpy as np
import tensorflow as tf
import tensorflow_text as tf_text

from tfbert_npu.preprocess.character_table import PLAIN_CJK, marks_that_stay, ruled_points
from tfbert_npu.preprocess.characters import CharacterRules
from tfbert_npu.preprocess.options import TextOptions

# Pieces of a probed character between two others: one unknown word, or three words.
_INSIDE, _APART = 1, 3


def split_by_kernel(chars: Iterable[str], options: TextOptions) -> list[str]:
    """The characters that the kernel cuts a word at and the original does not."""
    rules = CharacterRules(options)
    inside = [char for char in chars if char != " " and rules.expand(char) == char]
    return [char for char, count in zip(inside, _probe(inside), strict=True) if count != _INSIDE]


@lru_cache(maxsize=8)
def plain_pattern(options: TextOptions) -> str:
    """A regular expression (RE2) for texts that the kernel cuts as the original does.

    Their characters stay what they are, ASCII capitals apart, and bear on no other.
    """
    expand = CharacterRules(options).expand
    reordering = marks_that_stay() if options.strips_accents else frozenset()
    chars = [chr(point) for point in ruled_points() if point not in reordering]
    chars = [char for char in chars if expand(char).strip() == char]
    expanded = [expand(char) for char in chars]
    for first, last in PLAIN_CJK:
        chars += map(chr, range(first, last + 1))
    ideographs = chars[len(expanded) :]
    expanded += [f" {char} " for char in ideographs] if options.tokenize_chinese_chars else ideographs
    plain = [*"\t\n\r "]
    if options.lower_case:
        plain += string.ascii_uppercase
    for char, result, count in zip(chars, expanded, _probe(chars), strict=True):
        if (result == char and count == _INSIDE) or (result == f" {char} " and count == _APART):
            plain.append(char)
    return f"[{_ranges(np.unique([ord(char) for char in plain]))}]*"


def _probe(chars: Sequence[str]) -> np.ndarray:
    """Number of pieces of each character between two letters; a space would give two."""
    kernel = tf_text.FastWordpieceTokenizer(
        ["[UNK]", "a", "##a"], token_out_type=tf.int32, unknown_token="[UNK]"
    )
    texts = tf.constant([f"a{char}a" for char in chars], tf.string, shape=[len(chars)])
    counts = kernel.tokenize(texts).row_lengths().numpy()
    return np.where(np.array(chars) == "a", _INSIDE, counts)  # "aaa" has three pieces, but is one word


def _ranges(points: np.ndarray) -> str:
    """Ascending code points as the inside of a character class."""
    breaks = np.flatnonzero(np.diff(points) > 1)
    firsts, lasts = points[np.append(0, breaks + 1)], points[np.append(breaks, len(points) - 1)]
    return "".join(rf"\x{{{first:X}}}-\x{{{last:X}}}" for first, last in zip(firsts, lasts, strict=True))
