"""`evaluate`: how right a model is on labeled data, with the interval that so few examples allow."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from tfbert_npu._files import replacing
from tfbert_npu.tasks.answers import answer
from tfbert_npu.tasks.bootstrap import interval, interval_of, main_metric, resampled
from tfbert_npu.tasks.classes import classify
from tfbert_npu.tasks.conll import read_conll
from tfbert_npu.tasks.entities import entity_labels_of, tag_words
from tfbert_npu.tasks.examples import QuestionExample, TaggedExample, TextExample
from tfbert_npu.tasks.loading import TaskModel
from tfbert_npu.tasks.metrics import (
    class_metrics,
    entity_metrics,
    multi_label_metrics,
    regression_metrics,
    squad_metrics,
)
from tfbert_npu.tasks.readers import read_squad, read_texts
from tfbert_npu.tasks.running import as_tokenizer, check_command, labels_of, length_for
from tfbert_npu.tasks.schemes import SchemeName, group_entities, recognize_scheme
from tfbert_npu.tasks.text_files import DataError, parse_json, read_text_lines
from tfbert_npu.tasks.words import given_words

EvaluationTask = Literal["classify", "pair", "regression", "ner", "qa"]
LabeledExample = TextExample | TaggedExample | QuestionExample
Answer = str | float | tuple[str, ...]


@dataclass(frozen=True)
class Prediction:
    """What was expected of an example and what was found.

    A class name or a tuple of several, a number, the labels of a sentence's words, or (qa) the right answers
    and the one given.
    """

    expected: Answer
    found: Answer


@dataclass(frozen=True)
class Evaluation:
    """Metrics by name, the 95 % bootstrap interval of the main one, and the predictions."""

    metrics: dict[str, float]
    main: str
    interval: tuple[float, float]
    predictions: tuple[Prediction, ...]


def read_examples(
    task: EvaluationTask,
    path: Path,
    *,
    text_column: str = "text",
    pair_column: str | None = None,
    label_column: str = "label",
    delimiter: str | None = None,
    multi_label: bool = False,
    word_column: int | None = None,
    tag_column: int | None = None,
) -> list[LabeledExample]:
    """The labeled examples of a file; see the readers for its forms.

    Raises:
        FileNotFoundError: There is no such file.
        DataError: The file is damaged, of another form, or empty.
    """
    examples: Iterable[LabeledExample]
    if task == "ner":
        examples = read_conll(path, word_column, tag_column)
    elif task == "qa":
        examples = read_squad(path)
    else:
        kind = "number" if task == "regression" else "classes" if multi_label else "class"
        examples = read_texts(path, text_column, pair_column, label_column, kind, delimiter)
    found: list[LabeledExample] = list(examples)
    if not found:
        raise DataError(f"{path} is empty: it holds not a single example to evaluate on")
    return found


def evaluate(
    task: EvaluationTask,
    model: Any,
    preprocessor: Any,
    examples: Sequence[LabeledExample] | None = None,
    *,
    labels: Sequence[str] | None = None,
    scheme: SchemeName | None = None,
    seq_length: int | None = None,
    batch_size: int = 32,
    no_answer: bool = False,
    stride: int | None = None,
) -> Evaluation:
    """Score a model on labeled examples: `evaluate(task, model, examples)` of what `load` gave.

    Args:
        task: What the model does.
        model: What `load` gave, after which come the examples; or a head, or any callable over the encoder's
            inputs, such as a `load_npu` session.
        preprocessor: Its `BertPreprocessor` or `BertTokenizer`; of a loaded model left out.
        examples: The data, such as `read_examples` gives it.
        labels: Label names; by default the model's.
        scheme: ner: how labels mark entities; by default recognized from their names.
        seq_length: Longest sequence in tokens; by default the artifact's longest shape, else 128, and 384 for
            questions.
        batch_size: Rows per call of the model.
        no_answer: qa: a question may have no answer.
        stride: qa: overlap of windows in tokens; see `answer`.

    Returns:
        Accuracy, macro F1 and Matthews' correlation; F1 of several labels; Pearson's and Spearman's
        correlation; precision, recall and F1 of entities and token accuracy; or exact match and F1.

    Raises:
        ValueError: There are no examples, or one has a label that the model lacks.
    """
    if task not in get_args(EvaluationTask):
        raise ValueError(f"task must be one of {', '.join(get_args(EvaluationTask))}, got {task!r}")
    check_command(model, task)
    if isinstance(model, TaskModel) and examples is None:
        examples, preprocessor = preprocessor, model.tokenizer
    if not examples:
        raise ValueError("there are no examples to evaluate on; give data with at least one")
    tokenizer = as_tokenizer(preprocessor)
    length = length_for(model, seq_length, 384 if task == "qa" else 128)
    if task == "qa":
        questions = [example for example in examples if isinstance(example, QuestionExample)]
        best = answer(
            model, tokenizer, [e.question for e in questions], [e.context for e in questions],
            no_answer=no_answer, seq_length=length, stride=stride, batch_size=batch_size,
        )  # fmt: skip
        return score(
            task,
            [
                Prediction(tuple(text for text, _ in e.answers), found[0].answer)
                for e, found in zip(questions, best, strict=True)
            ],
        )
    if task == "ner":
        names = entity_labels_of(model, labels)
        sentences = [example for example in examples if isinstance(example, TaggedExample)]
        _check_labels((tag for example in sentences for tag in example.tags), names)
        words = [given_words(tokenizer, example.words) for example in sentences]
        tagged = tag_words(model, tokenizer, words, names, seq_length=length, batch_size=batch_size)
        predictions = [
            Prediction(e.tags, tuple(tags)) for e, (tags, _) in zip(sentences, tagged, strict=True)
        ]
        return score(task, predictions, scheme=scheme, labels=names)
    names = labels_of(model, labels)
    texts = [example for example in examples if isinstance(example, TextExample)]
    several = any(isinstance(example.label, tuple) for example in texts)
    pairs = [str(example.pair) for example in texts] if texts[0].pair is not None else None
    kind: Literal["regression", "multi_label_classification", "single_label_classification"] = (
        "single_label_classification"
    )
    if task == "regression":
        kind = "regression"
    elif several:
        kind = "multi_label_classification"
    if task != "regression":
        _check_labels((name for e in texts for name in _names(e.label)), names)
    scored = classify(
        model, tokenizer, [example.text for example in texts], pairs, labels=names, problem_type=kind,
        seq_length=length, batch_size=batch_size,
    )  # fmt: skip
    predictions = []
    for example, row in zip(texts, scored, strict=True):
        found: Answer = row[0].score if kind == "regression" else row[0].label
        if several:
            found = tuple(one.label for one in row if one.score > 0.5)
        expected = example.label if example.label is not None else ""
        predictions.append(Prediction(expected, found))
    return score(task, predictions)


def score(
    task: EvaluationTask,
    predictions: Sequence[Prediction],
    *,
    scheme: SchemeName | None = None,
    labels: Iterable[str] = (),
) -> Evaluation:
    """Metrics of predictions, wherever they were made."""
    units, main = _units(task, predictions, scheme, labels)
    expected, found = [p.expected for p in predictions], [p.found for p in predictions]
    if task == "regression":
        metrics = regression_metrics([float(e) for e in expected], [float(f) for f in found])  # type: ignore[arg-type]
    elif task == "ner":
        marks = recognize_scheme(_all_labels(predictions, labels), scheme)
        metrics = entity_metrics(expected, found, marks)  # type: ignore[arg-type]
        same = [a == b for e, f in zip(expected, found, strict=True) for a, b in zip(e, f, strict=True)]  # type: ignore[arg-type]
        metrics["token_accuracy"] = float(np.mean(same))
    elif task == "qa":
        metrics = squad_metrics(expected, found)  # type: ignore[arg-type]
    elif main == "f1_micro":
        names = sorted(_all_labels(predictions, labels))
        matrices = [
            np.array([[name in _names(row) for name in names] for row in rows], int)
            for rows in (expected, found)
        ]
        metrics = multi_label_metrics(*matrices)
    else:
        metrics = class_metrics(expected, found)  # type: ignore[arg-type]
    return Evaluation(metrics, main, interval_of(units), tuple(predictions))


def difference(
    task: EvaluationTask, first: Sequence[Prediction], second: Sequence[Prediction]
) -> tuple[float, tuple[float, float]]:
    """How much better the second is in the main metric, with the interval of a paired bootstrap.

    Raises:
        ValueError: They are predictions of other examples.
    """
    if [p.expected for p in first] != [p.expected for p in second]:
        raise ValueError("the two sets of predictions are of other examples; score both on the same data")
    labels = _all_labels([*first, *second], ()) if task == "ner" else ()
    (a, _), (b, _) = (_units(task, rows, None, labels) for rows in (first, second))
    change = main_metric(b.sum(0, keepdims=True)) - main_metric(a.sum(0, keepdims=True))
    sums, others = resampled(a, b)
    return float(change[0]), interval(main_metric(others) - main_metric(sums))


def write_predictions(path: Path, predictions: Iterable[Prediction]) -> None:
    """Write JSON lines: the number of each row, what was expected, and what was found."""
    with replacing(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        for row, one in enumerate(predictions):
            values = {"row": row, "expected": one.expected, "found": one.found}
            file.write(json.dumps(values, ensure_ascii=False) + "\n")


def read_predictions(path: Path) -> list[Prediction]:
    """Read what `write_predictions` wrote, in any order of rows.

    Raises:
        DataError: A row is damaged, missing, or there twice.
    """
    rows: dict[int, Prediction] = {}
    for number, line in read_text_lines(path):
        if not line.strip():
            continue
        where = f"{path} line {number}"
        entry = parse_json(line, where)
        row = entry.get("row") if isinstance(entry, dict) else None
        if not isinstance(row, int) or "expected" not in entry or "found" not in entry:
            raise DataError(f"{where} must hold row, expected and found", "write it with --predictions")
        if row in rows:
            raise DataError(f"{where}: row {row} is there twice", "keep one of them")
        rows[row] = Prediction(_value(entry["expected"], where), _value(entry["found"], where))
    missing = next((row for row in range(len(rows)) if row not in rows), None)
    if missing is not None or not rows:
        raise DataError(f"{path} has no row {missing or 0}", "give the predictions of all examples")
    return [rows[row] for row in sorted(rows)]


def _value(value: Any, where: str) -> Answer:
    if isinstance(value, list) and all(isinstance(one, str) for one in value):
        return tuple(value)
    if isinstance(value, str | float | int) and not isinstance(value, bool):
        return value
    raise DataError(f"{where}: expected and found must be a text, a number, or a list of texts")


def _check_labels(labels: Iterable[str], known: Sequence[str]) -> None:
    unknown = sorted(set(labels) - set(known))
    if unknown:
        raise ValueError(
            f"the data has the label {unknown[0]!r}, which is none of the model's {len(known)} labels "
            f"({', '.join(known[:5])}{', ...' if len(known) > 5 else ''}); take the data of this model"
        )


def _names(label: Any) -> tuple[str, ...]:
    return label if isinstance(label, tuple) else (str(label),)


def _all_labels(predictions: Sequence[Prediction], labels: Iterable[str]) -> set[str]:
    return {*labels, *(name for p in predictions for name in (*_names(p.expected), *_names(p.found)))}


def _units(
    task: EvaluationTask, predictions: Sequence[Prediction], scheme: SchemeName | None, labels: Iterable[str]
) -> tuple[np.ndarray, str]:
    """Numbers of each example [N, K] of whose sums the main metric is a function, and its name."""
    rows: list[tuple[float, ...]]
    if task == "regression":
        x, y = (np.array([float(getattr(p, n)) for p in predictions]) for n in ("expected", "found"))
        x, y = x - x.mean(), y - y.mean()  # the correlation stays, and rounding does less harm
        return np.stack([np.ones_like(x), x, y, x * x, y * y, x * y], axis=1), "pearson"
    if task == "qa":
        rows = [(1.0, squad_metrics([_names(p.expected)], [str(p.found)])["f1"]) for p in predictions]
        return np.array(rows), "f1"
    if task != "ner" and not any(isinstance(p.expected, tuple) for p in predictions):
        return np.array([(1.0, float(p.expected == p.found)) for p in predictions]), "accuracy"
    sets: list[tuple[set[Any], set[Any]]]
    if task == "ner":
        marks = recognize_scheme(_all_labels(predictions, labels), scheme)
        sets = [
            (set(group_entities(_names(p.expected), marks)), set(group_entities(_names(p.found), marks)))
            for p in predictions
        ]
    else:
        sets = [(set(_names(p.expected)), set(_names(p.found))) for p in predictions]
    rows = [(float(len(a & b)), float(len(a)), float(len(b))) for a, b in sets]
    return np.array(rows), "f1" if task == "ner" else "f1_micro"
