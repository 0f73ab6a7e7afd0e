"""Google's BasicTokenizer on the host: a text to its normalized words, without TensorFlow."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable

from tfbert_npu.preprocess.characters import CharacterRules
from tfbert_npu.preprocess.options import TextOptions


class _LazyTable(dict[int, str]):
    """A table for `str.translate` that works out a character when it first meets it."""

    def __init__(self, rule: Callable[[str], str]):
        super().__init__()
        self._rule = rule

    def __missing__(self, point: int) -> str:
        value = self[point] = self._rule(chr(point))
        return value


class BertNormalizer:
    """Cuts text into words as Google's BasicTokenizer does; see `characters` for the rules.

    Whole-text operations stand for the original's per-word ones: a space is neither cased nor a combining
    mark, so neither the final sigma nor the order of marks looks past it.
    """

    def __init__(self, options: TextOptions):
        self.rules = CharacterRules(options)
        self._lower = options.lower_case
        self._decompose = options.strips_accents
        self._clean = _LazyTable(self.rules.clean)
        self._finish = _LazyTable(self.rules.finish)

    def words(self, text: str) -> list[str]:
        """The words of `text`, normalized."""
        text = text.translate(self._clean)
        if self._lower:
            text = text.lower()
        if self._decompose:
            text = unicodedata.normalize("NFD", text)
        return text.translate(self._finish).split()

    def chunks(self, text: str) -> list[str]:
        """Parts of `text` as it stands whose words, one after the other, are the words of `text`.

        They end at white space, except where a character that cleaning removes is white space to Python.
        """
        # A printable text has no separator but the space, and no control character.
        return (text if text.isprintable() else text.translate(self._clean)).split()
