"""Where tensorflow-text's fast WordPiece kernel cuts words, found by asking it.

The kernel has its own tables of white space, punctuation and ideographs, of the Unicode version that it
was built with. Characters on which it agrees with the original tokenizer need no normalization.
"""

from __future__ import annotations

import re
import string
from collections.abc import Iterable, Sequence
from functools import lru_cache

import numpy as np
import tensorflow as tf
import tensorflow_text as tf_text

from tfbert_npu.preprocess.character_table import PLAIN_CJK, expansions, marks_that_stay, ruled_points
from tfbert_npu.preprocess.characters import CAPITAL_SIGMA, CharacterRules
from tfbert_npu.preprocess.options import TextOptions

# Pieces of a probed character between two others: one unknown word, or three words.
_INSIDE, _APART = 1, 3

_SURROGATES = range(0xD800, 0xE000)
_MANY_SPACES = re.compile(" +")


def split_by_kernel(chars: Iterable[str], options: TextOptions) -> list[str]:
    """The characters that the kernel cuts a word at and the original does not."""
    rules = CharacterRules(options)
    inside = [char for char in chars if char != " " and rules.expand(char) == char]
    return [char for char, count in zip(inside, _probe(inside), strict=True) if count != _INSIDE]


@lru_cache(maxsize=8)
def plain_pattern(options: TextOptions) -> str:
    """A regular expression (RE2) for texts that the kernel cuts as the original does.

    Their characters stay what they are, ASCII capitals apart, and act on no other.
    """
    capitals = map(ord, string.ascii_uppercase if options.lower_case else "")
    return _any_of([*_plain_points(options), *capitals, *map(ord, "\t\n\r ")])


@lru_cache(maxsize=8)
def folded_pattern(options: TextOptions) -> str:
    """A regular expression (RE2) for texts on which the kernel's own normalizer agrees with the original.

    That normalizer, `tf_text.FastBertNormalizer`, works character by character. No character of such a
    text becomes more characters than it has bytes, so that a text's bytes bound the length of its words.
    """
    expanded = expansions(options)
    unfit = {ord(CAPITAL_SIGMA), *_SURROGATES, *marks_that_stay()}
    chars = [chr(point) for point in ruled_points() if point not in unfit]
    chars += [char for first, last in PLAIN_CJK for char in map(chr, range(first, last + 1))]
    folded = [raw.decode() for raw in fast_normalizer().normalize(tf.constant(chars)).numpy()]
    parts = sorted(set("".join(folded)))
    spaced = dict(zip(parts, map(_spaced, parts, _probe(parts)), strict=True))
    plain = set(_plain_points(options))
    agreeing = []
    for char, result in zip(chars, folded, strict=True):
        if result == char and ord(char) in plain:
            agreeing.append(ord(char))
        elif result != char and len(result) <= len(char.encode()):
            ours = _MANY_SPACES.sub(" ", "".join(map(spaced.__getitem__, result)))
            if ours == _MANY_SPACES.sub(" ", expanded.get(ord(char), char)):
                agreeing.append(ord(char))
    return _any_of([*agreeing, ord(" ")])


@lru_cache(maxsize=8)
def _plain_points(options: TextOptions) -> list[int]:
    """Code points that neither the original nor the kernel changes and that both split alike."""
    expanded = expansions(options)
    unfit = {ord(" "), *_SURROGATES, *(marks_that_stay() if options.strips_accents else ())}
    inside, apart = [], []
    for point in ruled_points():
        if point not in unfit:
            result = expanded.get(point)
            if result is None:
                inside.append(point)
            elif result == f" {chr(point)} ":
                apart.append(point)
    ideographs = [point for first, last in PLAIN_CJK for point in range(first, last + 1)]
    (apart if options.tokenize_chinese_chars else inside).extend(ideographs)
    plain = []
    for points, wanted in ((inside, _INSIDE), (apart, _APART)):
        plain += np.array(points)[_probe([chr(point) for point in points]) == wanted].tolist()
    return plain


@lru_cache(maxsize=1)
def fast_normalizer() -> tf_text.FastBertNormalizer:
    """tensorflow-text's lower-casing, decomposing and accent-stripping normalizer."""
    return tf_text.FastBertNormalizer(lower_case_nfd_strip_accents=True)


def _spaced(char: str, count: int) -> str:
    """What the kernel makes of a character, in the notation of `CharacterRules.expand`."""
    return {_INSIDE: char, _APART: f" {char} "}.get(count, " ")


def _probe(chars: Sequence[str]) -> np.ndarray:
    """Number of pieces of each character between two letters; a space would give two."""
    kernel = tf_text.FastWordpieceTokenizer(
        ["[UNK]", "a", "##a"], token_out_type=tf.int32, unknown_token="[UNK]"
    )
    texts = tf.constant([f"a{char}a" for char in chars], tf.string, shape=[len(chars)])
    counts = kernel.tokenize(texts).row_lengths().numpy()
    return np.where(np.array(chars) == "a", _INSIDE, counts)  # "aaa" has three pieces, but is one word


def _any_of(points: Sequence[int]) -> str:
    """A regular expression for texts of these code points."""
    ordered = np.unique(points)
    breaks = np.flatnonzero(np.diff(ordered) > 1)
    firsts, lasts = ordered[np.append(0, breaks + 1)], ordered[np.append(breaks, len(ordered) - 1)]
    ranges = [rf"\x{{{first:X}}}-\x{{{last:X}}}" for first, last in zip(firsts, lasts, strict=True)]
    return f"[{''.join(ranges)}]*"
