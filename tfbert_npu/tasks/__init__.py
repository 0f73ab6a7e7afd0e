"""What a user asks of a model: fill in a word, a class, named entities, an answer, a vector.

Plain functions over a model and its preprocessor. A model is any of the heads of
`tfbert_npu.models.heads`, or any callable over the encoder's inputs as int32 numpy arrays, such as a
`load_npu` session: the functions import no TensorFlow of their own. Names load on first use.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tfbert_npu._lazy import lazy_names

if TYPE_CHECKING:  # the face of the names below, for type checkers and editors
    from tfbert_npu.tasks.answers import answer as answer
    from tfbert_npu.tasks.classes import classify as classify
    from tfbert_npu.tasks.embedding import embed as embed
    from tfbert_npu.tasks.entities import ner as ner
    from tfbert_npu.tasks.masked_words import fill_mask as fill_mask

_HOME = {
    "answer": ".answers",
    "classify": ".classes",
    "embed": ".embedding",
    "evaluate": ".evaluation",
    "fill_mask": ".masked_words",
    "ner": ".entities",
}

__all__ = sorted(_HOME)

__getattr__, __dir__ = lazy_names(__name__, _HOME)
