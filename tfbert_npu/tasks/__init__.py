"""What a user asks of a model: fill in a word, a class, named entities, an answer, a vector.

`load` gives a model with its tokenizer and labels, from a checkpoint or an artifact, on any backend; each
task is a plain function `task(model, texts)`. Or it is given a model and its preprocessor, where the model is
any of the heads of `tfbert_npu.models.heads`, or any callable over the encoder's inputs as int32 numpy
arrays, such as a `load_npu` session. TensorFlow is imported for the backend `"tf"` only. Names load on first
use.

Example:
    >>> from tfbert_npu import tasks
    >>> model = tasks.load("out/mine-rk3588", backend="auto")  # doctest: +SKIP
    >>> tasks.classify(model, ["Can I get a refund?"])  # doctest: +SKIP
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tfbert_npu._lazy import lazy_names

if TYPE_CHECKING:  # the face of the names below, for type checkers and editors
    from tfbert_npu.tasks.answers import answer as answer
    from tfbert_npu.tasks.classes import classify as classify
    from tfbert_npu.tasks.embedding import embed as embed
    from tfbert_npu.tasks.entities import ner as ner
    from tfbert_npu.tasks.evaluation import evaluate as evaluate
    from tfbert_npu.tasks.examples import QuestionExample as QuestionExample
    from tfbert_npu.tasks.examples import TaggedExample as TaggedExample
    from tfbert_npu.tasks.examples import TextExample as TextExample
    from tfbert_npu.tasks.loading import TaskModel as TaskModel
    from tfbert_npu.tasks.loading import load as load
    from tfbert_npu.tasks.masked_words import fill_mask as fill_mask
    from tfbert_npu.tasks.reranking import rerank as rerank
    from tfbert_npu.tasks.timing import benchmark as benchmark

_HOME = {
    "TaskModel": ".loading",
    "answer": ".answers",
    "QuestionExample": ".examples",
    "TaggedExample": ".examples",
    "TextExample": ".examples",
    "benchmark": ".timing",
    "classify": ".classes",
    "embed": ".embedding",
    "evaluate": ".evaluation",
    "fill_mask": ".masked_words",
    "load": ".loading",
    "ner": ".entities",
    "rerank": ".reranking",
}

__all__ = sorted(_HOME)

__getattr__, __dir__ = lazy_names(__name__, _HOME)
