"""Writes tf_text_characters.json: what tensorflow-text's BertTokenizer does to each character.

Run it with `python -m tfbert_npu.preprocess.generate_tf_text_table` when tensorflow-text changes its
Unicode version; a test holds the file against the installed one.
"""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
import tensorflow_text as tf_text


def describe_characters() -> dict[str, Any]:
    """The table, found by asking tensorflow-text about every code point.

    Returns:
        `version`: of tensorflow-text. `folded`: what NFKC_Casefold and NFD make of a character, for those
        they change; Hangul syllables, which NFD decomposes by rule, are left out. `removed`: ranges of
        nonspacing marks. `spaces` and `apart`: ranges of characters that end a word and that are words of
        their own.
    """
    points = [point for point in range(0x110000) if not 0xD800 <= point < 0xE000]
    chars = [chr(point) for point in points]
    tensor = tf.constant(chars)
    folded = tf_text.normalize_utf8(tf_text.case_fold_utf8(tensor), "NFD").numpy()
    changed = {
        f"{point:04X}": text
        for point, char, raw in zip(points, chars, folded, strict=True)
        if (text := raw.decode()) != char and not _is_hangul_by_rule(char, text)
    }
    removed = tf.strings.regex_replace(tensor, r"\p{Mn}", "").numpy() == b""
    words = _count_words(chars)
    return {
        "version": tf_text.__version__,
        "folded": changed,
        "removed": _ranges(points, removed),
        "spaces": _ranges(points, words == 2),
        "apart": _ranges(points, words == 3),
    }


def _is_hangul_by_rule(char: str, folded: str) -> bool:
    return "\uac00" <= char <= "\ud7a3" and folded == unicodedata.normalize("NFD", char)


def _count_words(chars: Sequence[str]) -> np.ndarray:
    table = tf.lookup.StaticVocabularyTable(
        tf.lookup.KeyValueTensorInitializer(["[UNK]", "a"], [0, 1], tf.string, tf.int64), 1
    )
    tokenizer = tf_text.BertTokenizer(table, lower_case=False)
    batches = [chars[start : start + 65536] for start in range(0, len(chars), 65536)]
    counts = [tokenizer.tokenize([f"a{char}a" for char in batch]).row_lengths().numpy() for batch in batches]
    return np.concatenate(counts)


def _ranges(points: Sequence[int], chosen: np.ndarray) -> list[list[int]]:
    found = np.array(points)[chosen]
    breaks = np.flatnonzero(np.diff(found) > 1)
    firsts, lasts = found[np.append(0, breaks + 1)], found[np.append(breaks, len(found) - 1)]
    return np.stack([firsts, lasts], 1).tolist()


if __name__ == "__main__":
    target = Path(str(resources.files("tfbert_npu.preprocess") / "tf_text_characters.json"))
    document = json.dumps(describe_characters(), ensure_ascii=True, separators=(",", ":"))
    target.write_text(document + "\n", encoding="ascii")
    print(f"wrote {target}: {len(document)} bytes")  # noqa: T201
