"""What Google's original BERT tokenizer does to one character.

The rules are those of BasicTokenizer in tokenization.py of google-research/bert (Apache-2.0):
clean, space out CJK ideographs, lower-case, decompose (NFD), drop nonspacing marks, split punctuation.
All but two of them concern one character at a time, so that a table holds them; the two are Python's
final sigma (`final_sigma_context`) and the canonical order of combining marks.

The original asks Python's `unicodedata`, and so does this module: ids follow the Unicode version of the
running Python (`UNICODE_VERSION`), as they did for the original. A saved graph keeps the version of the
Python that built it.
"""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass

from tfbert_npu.preprocess.options import TextOptions

UNICODE_VERSION = unicodedata.unidata_version

MAX_WORD_CHARACTERS = 200  # of the original's WordpieceTokenizer; a longer word is [UNK]

CAPITAL_SIGMA, SMALL_SIGMA, FINAL_SIGMA = "\u03a3\u03c3\u03c2"

# Blocks that the original takes for CJK ideographs; Hiragana, Katakana and Hangul are not among them.
CJK_RANGES = (
    (0x3400, 0x4DBF),
    (0x4E00, 0x9FFF),
    (0xF900, 0xFAFF),
    (0x20000, 0x2A6DF),
    (0x2A700, 0x2B73F),
    (0x2B740, 0x2B81F),
    (0x2B820, 0x2CEAF),
    (0x2F800, 0x2FA1F),
)


def is_cjk(char: str) -> bool:
    """Whether the original puts spaces around `char`."""
    point = ord(char)
    return point >= 0x3400 and any(first <= point <= last for first, last in CJK_RANGES)


def is_removed(char: str) -> bool:
    """Whether cleaning drops `char`: NUL, U+FFFD, and control or format characters other than \\t \\n \\r.

    Surrogates go too. The original never sees one: it decodes bytes, dropping what is not UTF-8, and a
    lone surrogate in a Python string stands for such bytes.
    """
    return char == "\ufffd" or (char not in "\t\n\r" and unicodedata.category(char) in ("Cc", "Cf", "Cs"))


def is_space(char: str) -> bool:
    """Whether `char`, unless removed, ends a word: by cleaning (Zs) or `str.split` (U+2028, U+2029)."""
    return char.isspace()


def is_punctuation(char: str) -> bool:
    """Whether `char` is a word of its own: any P category, and ASCII but letters, digits, spaces."""
    point = ord(char)
    if point < 128:
        return 33 <= point <= 47 or 58 <= point <= 64 or 91 <= point <= 96 or 123 <= point <= 126
    return unicodedata.category(char).startswith("P")


def final_sigma_context(char: str) -> tuple[bool, bool]:
    """How `char` acts on a capital sigma beside it: (is cased, is skipped).

    Found by asking `str.lower`, whose rule is Unicode's Final_Sigma: a sigma is final after a cased
    character and not before one, case-ignorable characters being skipped on both sides.
    """
    if is_removed(char):
        return False, True
    cased = (char + CAPITAL_SIGMA).lower()[-1] == FINAL_SIGMA
    return cased, not cased and ("A" + char + CAPITAL_SIGMA).lower()[-1] == FINAL_SIGMA


@dataclass(frozen=True)
class CharacterRules:
    """The per-character steps under given options; composed, they are `expand`."""

    options: TextOptions

    def clean(self, char: str) -> str:
        """Cleaning and CJK spacing: `char`, a space, `char` between spaces, or nothing."""
        if is_removed(char):
            return ""
        if is_space(char):
            return " "
        if self.options.tokenize_chinese_chars and is_cjk(char):
            return f" {char} "
        return char

    def decompose(self, char: str) -> str:
        """Lower-casing and canonical decomposition, as far as the options ask for them."""
        if self.options.lower_case:
            char = char.lower()
        return unicodedata.normalize("NFD", char) if self.options.strips_accents else char

    def finish(self, char: str) -> str:
        """Dropping of nonspacing marks and splitting of punctuation, on a decomposed character."""
        if self.options.strips_accents and unicodedata.category(char) == "Mn":
            return ""
        return f" {char} " if is_punctuation(char) else char

    def expand(self, char: str) -> str:
        """What becomes of `char` by itself: zero or more characters, words apart by spaces."""
        cleaned = self.clean(char)
        if not cleaned.strip():
            return cleaned
        finished = "".join(map(self.finish, self.decompose(char)))
        return f" {finished} " if len(cleaned) > 1 else finished
