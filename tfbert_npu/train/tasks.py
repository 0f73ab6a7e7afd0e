"""Each task's part of a fine-tuning: its reader, its head, its features and its metrics."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar

import numpy as np

from tfbert_npu.config import ProblemType
from tfbert_npu.heads import (
    MULTIPLE_CHOICE,
    QUESTION_ANSWERING,
    SEQUENCE_CLASSIFICATION,
    TOKEN_CLASSIFICATION,
    HeadSpec,
)
from tfbert_npu.models.heads import class_of
from tfbert_npu.preprocess import BertTokenizer
from tfbert_npu.tasks.answers import answer
from tfbert_npu.tasks.classes import classify
from tfbert_npu.tasks.conll import read_conll
from tfbert_npu.tasks.entities import tag_words
from tfbert_npu.tasks.evaluation import Answer, EvaluationTask, Prediction, score
from tfbert_npu.tasks.examples import ChoiceExample, Example, QuestionExample, TaggedExample, TextExample
from tfbert_npu.tasks.readers import read_choices, read_squad, read_texts
from tfbert_npu.tasks.running import call
from tfbert_npu.tasks.schemes import LabelScheme, recognize_scheme
from tfbert_npu.tasks.words import given_words
from tfbert_npu.train.batches import Batches, BatchOptions
from tfbert_npu.train.data_options import DataOptions
from tfbert_npu.train.features import (
    Feature,
    choice_feature,
    question_features,
    tagged_features,
    text_feature,
)
from tfbert_npu.train.options import TrainOptions

E = TypeVar("E", bound=Example)


class Task(Generic[E]):
    """Base of the tasks.

    Args:
        data: Where the data is.
        tokenizer: Makes word ids.
        seq_length: Longest row in tokens.
    """

    spec: ClassVar[HeadSpec]
    monitor: ClassVar[str]
    problem_type: ProblemType | None = None

    def __init__(self, data: DataOptions, tokenizer: BertTokenizer, seq_length: int) -> None:
        self.data, self.tokenizer, self.seq_length = data, tokenizer, seq_length
        self.label2id: dict[str, int] = {}
        self.note = ""  # what was found out about the labels, for the user

    @property
    def head(self) -> Any:
        """The Keras class that learns it."""
        return class_of(self.spec)

    def begin(self, model: str | os.PathLike[str], *, new: bool, revision: str | None) -> None:
        """Look at what the training starts from."""

    def head_arguments(self, options: TrainOptions) -> dict[str, Any]:
        """Arguments of the head's class, once the data is read.

        Raises:
            ValueError: An option is not for this task.
        """
        if options.dimensions:
            raise ValueError("dimensions are those of sentence vectors; give them with the task similarity")
        return {} if self.problem_type is None else {"problem_type": self.problem_type}

    def check_batch(self, rows: int) -> None:
        """Make sure that something can be learned from a batch of so many rows.

        Raises:
            ValueError: It cannot.
        """

    def save_beside(self, directory: Path, hidden_size: int) -> None:
        """Write what else belongs to the model."""

    def read(self, path: Any) -> Iterator[E]:
        """The examples of a file."""
        raise NotImplementedError

    def names_of(self, example: E) -> Iterable[str]:
        """The label names that an example has."""
        return ()

    def class_of(self, example: E) -> str | None:
        """The one class of which a split must keep the share; None: there is no such class."""
        return None

    def group_of(self, example: E) -> str | None:
        """What the example must not be separated from when data is held out; None: nothing."""
        return None

    def features(self, example: E) -> Iterable[Feature]:
        """The rows of an example."""
        raise NotImplementedError

    def evaluate(self, model: Any, examples: Sequence[E]) -> dict[str, float]:
        """Metrics of a model's predictions, as `score` gives them."""
        raise NotImplementedError

    def expected_of(self, example: E) -> Answer:
        """What is right of an example, as `evaluation.Prediction` has it."""
        raise NotImplementedError

    def score(self, task: EvaluationTask, examples: Sequence[E], found: Sequence[Answer]) -> dict[str, float]:
        """Metrics by name, and the ends of the 95 % interval of the main one: `..._low` and `..._high`."""
        predictions = [
            Prediction(self.expected_of(e), answer) for e, answer in zip(examples, found, strict=True)
        ]
        result = score(task, predictions, scheme=self.data.scheme, labels=self.label2id)
        low, high = result.interval
        return {**result.metrics, f"{result.main}_low": low, f"{result.main}_high": high}

    def set_labels(self, found: Collection[str]) -> tuple[str, ...] | None:
        """Take the label names from `data.labels`, or those found in the data; None where there are none."""
        names = self.data.labels or sort_names(found)
        self.label2id = {name: index for index, name in enumerate(names)}
        return names or None


_LEAST = 1e-12  # a probability below which a float32 softmax gives 0


def sort_names(names: Iterable[str]) -> tuple[str, ...]:
    """Label names in order: as numbers where all of them are, else by their characters."""
    try:
        return tuple(sorted(names, key=lambda name: (float(name), name)))
    except ValueError:
        return tuple(sorted(names))


class TextTask(Task[TextExample]):
    """Classes, several classes, or a number for texts and pairs."""

    spec = SEQUENCE_CLASSIFICATION
    monitor = "accuracy"
    kind = "class"

    def __init__(self, data: DataOptions, tokenizer: BertTokenizer, seq_length: int) -> None:
        super().__init__(data, tokenizer, seq_length)
        self.problem_type = "single_label_classification"
        if data.multi_label:
            self.kind, self.problem_type = "classes", "multi_label_classification"
            self.monitor = "f1_micro"  # type: ignore[misc]

    def read(self, path: Any) -> Iterator[TextExample]:
        """Rows of a CSV, TSV or JSON lines file."""
        data = self.data
        return read_texts(
            path, data.text_column, data.pair_column, data.label_column, self.kind, data.delimiter
        )

    def names_of(self, example: TextExample) -> Iterable[str]:
        """Its class or classes."""
        return example.label if isinstance(example.label, tuple) else (str(example.label),)

    def class_of(self, example: TextExample) -> str | None:
        """Its class, where a text has just one."""
        return example.label if isinstance(example.label, str) else None

    def features(self, example: TextExample) -> Iterable[Feature]:
        """One row."""
        return (text_feature(self.tokenizer, example, self.label2id, self.seq_length),)

    def expected_of(self, example: TextExample) -> Answer:
        """Its label."""
        return "" if example.label is None else example.label

    def evaluate(self, model: Any, examples: Sequence[TextExample]) -> dict[str, float]:
        """Accuracy, others and cross-entropy; F1 over labels with a probability above 1/2; correlations."""
        pairs = None if self.data.pair_column is None else [str(example.pair) for example in examples]
        scored = classify(
            model, self.tokenizer, [e.text for e in examples], pairs, seq_length=self.seq_length
        )
        found: list[Answer] = [row[0].score if self.kind == "number" else row[0].label for row in scored]
        if self.kind == "classes":
            found = [tuple(one.label for one in row if one.score > 0.5) for row in scored]
        metrics = self.score("regression" if self.kind == "number" else "classify", examples, found)
        if self.kind != "class":
            return metrics
        right = [
            next(one.score for one in row if one.label == e.label)
            for e, row in zip(examples, scored, strict=True)
        ]
        return {**metrics, "loss": float(-np.log(np.maximum(right, _LEAST)).mean())}


class RegressionTask(TextTask):
    """A number for texts and pairs."""

    monitor = "pearson"
    kind = "number"

    def __init__(self, data: DataOptions, tokenizer: BertTokenizer, seq_length: int) -> None:
        super().__init__(data, tokenizer, seq_length)
        self.kind, self.problem_type = "number", "regression"

    def names_of(self, example: TextExample) -> Iterable[str]:
        """None."""
        return ()

    def set_labels(self, found: Collection[str]) -> tuple[str, ...]:
        """One label, called score."""
        return self.data.labels or ("score",)


class ChoiceTask(Task[ChoiceExample]):
    """The right one of several choices."""

    spec = MULTIPLE_CHOICE
    monitor = "accuracy"

    def read(self, path: Any) -> Iterator[ChoiceExample]:
        """Rows of a CSV, TSV or JSON lines file, or COPA's XML."""
        data = self.data
        return read_choices(path, data.text_column, data.choice_columns, data.label_column, data.delimiter)

    def features(self, example: ChoiceExample) -> Iterable[Feature]:
        """One row of several sequences."""
        return (choice_feature(self.tokenizer, example, self.seq_length),)

    def expected_of(self, example: ChoiceExample) -> str:
        """The number of the right choice."""
        return str(example.label)

    def evaluate(self, model: Any, examples: Sequence[ChoiceExample]) -> dict[str, float]:
        """Accuracy."""
        options = BatchOptions(seq_length=self.seq_length, shuffle=0, group=1)
        batches = Batches(lambda: (feature for e in examples for feature in self.features(e)), options)
        found = [str(i) for x, _, _ in batches.epoch(0) for i in call(model, x)["logits"].argmax(-1)]
        metrics = self.score("classify", examples, found)
        return {name: value for name, value in metrics.items() if name.startswith("accuracy")}


class TagTask(Task[TaggedExample]):
    """A label for every word: named entities."""

    spec = TOKEN_CLASSIFICATION
    monitor = "f1"
    scheme = LabelScheme()

    def read(self, path: Any) -> Iterator[TaggedExample]:
        """Sentences of a CoNLL file."""
        return read_conll(path, self.data.word_column, self.data.tag_column)

    def names_of(self, example: TaggedExample) -> Iterable[str]:
        """Its tags."""
        return example.tags

    def set_labels(self, found: Collection[str]) -> tuple[str, ...] | None:
        """Take the label names, and for each B- tag the I- tag that might follow it elsewhere."""
        names = super().set_labels(found) or ()
        self.scheme = recognize_scheme(names, self.data.scheme)
        self.note = f"label scheme: {self.scheme}"
        if self.data.labels is None:
            names = tuple(sorted({other for name in names for other in self.scheme.siblings(name)}))
            self.label2id = {name: index for index, name in enumerate(names)}
        return names or None

    def features(self, example: TaggedExample) -> Iterable[Feature]:
        """The sentence in as many rows as it needs."""
        return tagged_features(self.tokenizer, example, self.label2id, self.seq_length)

    def expected_of(self, example: TaggedExample) -> tuple[str, ...]:
        """Its tags."""
        return example.tags

    def evaluate(self, model: Any, examples: Sequence[TaggedExample]) -> dict[str, float]:
        """Precision, recall and F1 of whole entities."""
        sentences = [given_words(self.tokenizer, example.words) for example in examples]
        tagged = tag_words(model, self.tokenizer, sentences, list(self.label2id), seq_length=self.seq_length)
        return self.score("ner", examples, [tuple(tags) for tags, _ in tagged])


class QuestionTask(Task[QuestionExample]):
    """The stretch of a context that answers a question."""

    spec = QUESTION_ANSWERING
    monitor = "f1"

    def read(self, path: Any) -> Iterator[QuestionExample]:
        """Questions of a SQuAD file."""
        return read_squad(path)

    def group_of(self, example: QuestionExample) -> str:
        """Its article."""
        return example.group

    def features(self, example: QuestionExample) -> Iterable[Feature]:
        """Its windows."""
        return question_features(self.tokenizer, example, self.seq_length, self.data.stride)

    def expected_of(self, example: QuestionExample) -> tuple[str, ...]:
        """The right answers."""
        return tuple(text for text, _ in example.answers)

    def evaluate(self, model: Any, examples: Sequence[QuestionExample]) -> dict[str, float]:
        """SQuAD's exact match and F1."""
        best = answer(
            model,
            self.tokenizer,
            [example.question for example in examples],
            [example.context for example in examples],
            no_answer=self.data.no_answer,
            seq_length=self.seq_length,
            stride=self.data.stride,
        )
        return self.score("qa", examples, [answers[0].answer for answers in best])
