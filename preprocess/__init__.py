"""Text to BERT's inputs: a Keras layer for graphs, and a tokenizer that needs no TensorFlow.

Names load on first use, so that importing `BertTokenizer` imports no TensorFlow.
"""

from __future__ import annotations

import importlib
from typing import Any

_HOME = {
    "BertPreprocessor": "layer",
    "BertTokenizer": "tokenizer",
    "TextOptions": "options",
    "TokenMasker": "masking",
    "Vocabulary": "vocabulary",
    "byte_offsets_to_characters": "offsets",
    "next_sentence_pairs": "next_sentence",
}

__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOME])
