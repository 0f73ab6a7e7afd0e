"""The normalization inside published TF-Hub preprocessors on the host, without TensorFlow.

Its character tables are tensorflow-text's own, recorded in tf_text_characters.json, since neither ICU's
nor RE2's Unicode version is Python's.
"""

from __future__ import annotations

import json
import unicodedata
from functools import lru_cache
from importlib import resources
from typing import Any

from tfbert_npu.preprocess.options import TextOptions

MAX_WORD_BYTES = 100  # of tensorflow-text's BertTokenizer; a longer word is [UNK]

_SURROGATES = range(0xD800, 0xE000)


class TfTextNormalizer:
    """Cuts text into words as tensorflow-text's BertTokenizer does.

    Lower-casing is NFKC_Casefold, then NFD, then the removal of nonspacing marks; either way control and
    format characters become spaces, and only those and ASCII white space end words.
    """

    def __init__(self, options: TextOptions):
        self._fold = options.lower_case
        self._folded, self._finish = _tables(options.lower_case)

    def words(self, text: str) -> list[str]:
        """The words of `text`, normalized."""
        if self._fold:
            text = unicodedata.normalize("NFD", text.translate(self._folded))
        return [word for word in text.translate(self._finish).split(" ") if word]

    def chunks(self, text: str) -> list[str]:
        """Parts of `text` as it stands whose words, one after the other, are the words of `text`."""
        # A printable text has no separator but the space; of others, folding decides what ends a word.
        return text.split() if text.isprintable() else [text]


@lru_cache(maxsize=2)
def _tables(lower_case: bool) -> tuple[dict[int, str], dict[int, str]]:
    document = _document()
    folded = {int(point, 16): text for point, text in document["folded"].items()}
    folded.update(dict.fromkeys(_SURROGATES, "\ufffd"))  # they stand for bytes that are not UTF-8
    finish = dict.fromkeys(_SURROGATES, "\ufffd")
    if lower_case:
        finish.update(dict.fromkeys(_points(document["removed"]), ""))
    finish.update(dict.fromkeys(_points(document["spaces"]), " "))
    finish.update((point, f" {chr(point)} ") for point in _points(document["apart"]))
    return folded, finish


def _document() -> dict[str, Any]:
    path = resources.files("tfbert_npu.preprocess") / "tf_text_characters.json"
    return json.loads(path.read_text(encoding="ascii"))


def _points(ranges: list[list[int]]) -> list[int]:
    return [point for first, last in ranges for point in range(first, last + 1)]
