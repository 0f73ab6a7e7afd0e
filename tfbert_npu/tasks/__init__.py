"""What a user asks of a model: fill in a word, a class, named entities, an answer, a vector.

Plain functions over a model and its preprocessor. A model is any of the heads of `tfbert_npu.heads`, or any
callable over the encoder's inputs as int32 numpy arrays, such as a `load_npu` session: the functions import
no TensorFlow of their own. Names load on first use.
"""

from __future__ import annotations

import importlib
from typing import Any

_HOME = {
    "answer": "tfbert_npu.tasks.answers",
    "classify": "tfbert_npu.tasks.classes",
    "embed": "tfbert_npu.tasks.embedding",
    "fill_mask": "tfbert_npu.tasks.masked_words",
    "ner": "tfbert_npu.tasks.entities",
}

__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOME])
