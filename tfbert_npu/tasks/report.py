"""`evaluate --report`: figures for each class, and which class is taken for which."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tfbert_npu._failed_writes import make_directory
from tfbert_npu._files import replacing
from tfbert_npu.errors import require
from tfbert_npu.tasks.evaluation import EvaluationTask, Prediction
from tfbert_npu.tasks.schemes import LabelScheme, SchemeName, group_entities, recognize_scheme

_MOST_NAMED = 30
"""Classes beyond which a picture's axes have no names."""


@dataclass(frozen=True)
class ClassFigures:
    """One class, or one type of entity."""

    name: str
    precision: float
    recall: float
    f1: float
    support: int
    """How many there are in the data."""


@dataclass(frozen=True)
class Report:
    """What `evaluate --report` writes."""

    classes: tuple[ClassFigures, ...]
    confusion: np.ndarray | None
    """int [classes, classes]: rows are what was expected; None for entities."""

    def write(self, directory: Path) -> list[Path]:
        """Write `classes.csv`, and `confusion.csv` and `confusion.png` where there is a matrix.

        The picture needs matplotlib; without it, it is left out.

        Returns:
            The files.
        """
        make_directory(directory)
        names = [one.name for one in self.classes]
        heading: list[Any] = ["class", "precision", "recall", "f1", "support"]
        rows = [
            [one.name, *(f"{v:.4f}" for v in (one.precision, one.recall, one.f1)), one.support]
            for one in self.classes
        ]
        written = [_write_csv(directory / "classes.csv", [heading, *rows])]
        if self.confusion is not None:
            table = [[name, *row] for name, row in zip(names, self.confusion.tolist(), strict=True)]
            written.append(_write_csv(directory / "confusion.csv", [["expected \\ found", *names], *table]))
            try:
                require("matplotlib", "notebooks")
            except ImportError:
                return written
            _draw(self.confusion, names, directory / "confusion.png")
            written.append(directory / "confusion.png")
        return written


def report(
    task: EvaluationTask, predictions: Sequence[Prediction], scheme: SchemeName | None = None
) -> Report:
    """The report on predictions.

    Args:
        task: `"classify"`, `"pair"` or `"ner"`.
        predictions: One class for each text, or labels of words.
        scheme: ner: how the labels mark entities; by default recognized from them.

    Raises:
        ValueError: The task has no classes, or a text may have several.
    """
    if task == "ner":
        labels = {str(tag) for p in predictions for side in (p.expected, p.found) for tag in _tags(side)}
        return Report(tuple(_of_entities(predictions, recognize_scheme(labels, scheme))), None)
    if task not in ("classify", "pair") or any(isinstance(p.expected, tuple) for p in predictions):
        raise ValueError("--report is for one class of each text, and for entities; leave it out")
    names = sorted({str(name) for p in predictions for name in (p.expected, p.found)})
    place = {name: index for index, name in enumerate(names)}
    matrix = np.zeros((len(names), len(names)), int)
    for p in predictions:
        matrix[place[str(p.expected)], place[str(p.found)]] += 1
    right, expected, found = matrix.diagonal(), matrix.sum(1), matrix.sum(0)
    return Report(
        tuple(_figures(name, int(right[i]), int(expected[i]), int(found[i])) for i, name in enumerate(names)),
        matrix,
    )


def _of_entities(predictions: Sequence[Prediction], scheme: LabelScheme) -> list[ClassFigures]:
    counts: dict[str, list[int]] = {}
    for p in predictions:
        sides = [set(group_entities(_tags(side), scheme)) for side in (p.expected, p.found)]
        for which, entities in enumerate((sides[0] & sides[1], *sides)):
            for entity in entities:
                counts.setdefault(str(entity[0]), [0, 0, 0])[which] += 1
    return [_figures(name, *counts[name]) for name in sorted(counts)]


def _tags(side: str | float | tuple[str, ...]) -> tuple[str, ...]:
    return side if isinstance(side, tuple) else ()


def _figures(name: str, right: int, expected: int, found: int) -> ClassFigures:
    precision = right / found if found else 0.0
    recall = right / expected if expected else 0.0
    f1 = 2 * right / (expected + found) if expected + found else 0.0
    return ClassFigures(name, precision, recall, f1, expected)


def _write_csv(path: Path, rows: Sequence[Sequence[Any]]) -> Path:
    with replacing(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows(rows)
    return path


def _draw(matrix: np.ndarray, names: Sequence[str], path: Path) -> None:
    from matplotlib.figure import Figure

    size = max(4.0, min(0.3 * len(names) + 2, 20))
    figure = Figure(figsize=(size, size), layout="constrained")
    axis = figure.subplots()
    # Each row by its own sum, so that rare classes show as well.
    image = axis.imshow(matrix / np.maximum(matrix.sum(1, keepdims=True), 1), vmin=0, vmax=1, cmap="Blues")
    figure.colorbar(image, ax=axis, shrink=0.8, label="share of the expected class")
    if len(names) <= _MOST_NAMED:
        axis.set_xticks(range(len(names)), names, rotation=90)
        axis.set_yticks(range(len(names)), names)
    axis.set_xlabel("found")
    axis.set_ylabel("expected")
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png")
