"""`evaluate --report` says what scikit-learn says of each class."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from sklearn.metrics import confusion_matrix, precision_recall_fscore_support

from tfbert_npu.cli import cli
from tfbert_npu.tasks.evaluation import Prediction, write_predictions
from tfbert_npu.tasks.report import report


@pytest.mark.parametrize("seed", range(5))
def test_figures_of_classes_are_those_of_scikit_learn(seed: int) -> None:
    rng = np.random.default_rng(seed)
    names = [f"class {n}" for n in range(2 + seed * 3)]
    expected, found = (rng.choice(names, 60).tolist() for _ in range(2))
    made = report("classify", [Prediction(e, f) for e, f in zip(expected, found, strict=True)])
    labels = [one.name for one in made.classes]
    assert labels == sorted({*expected, *found})
    theirs = np.array(precision_recall_fscore_support(expected, found, labels=labels, zero_division=0)).T
    ours = [(one.precision, one.recall, one.f1, one.support) for one in made.classes]
    np.testing.assert_allclose(ours, theirs, atol=1e-12)
    np.testing.assert_array_equal(made.confusion, confusion_matrix(expected, found, labels=labels))


def test_figures_of_entities() -> None:
    """By hand: of two persons one is found whole; one place is right, and one is made up."""
    made = report(
        "ner",
        [
            Prediction(("B-PER", "I-PER", "O", "B-LOC"), ("B-PER", "I-PER", "O", "B-LOC")),
            Prediction(("B-PER", "I-PER", "O"), ("B-PER", "O", "B-LOC")),
        ],
    )
    figures = {one.name: (one.precision, one.recall, one.f1, one.support) for one in made.classes}
    assert figures == {"LOC": (0.5, 1.0, 2 / 3, 1), "PER": (0.5, 0.5, 0.5, 2)}
    assert made.confusion is None


@pytest.fixture
def predictions(tmp_path: Path) -> Path:
    path = tmp_path / "predictions.jsonl"
    write_predictions(path, [Prediction("yes", "no"), Prediction("no", "no"), Prediction("a, b", "yes")])
    return path


def evaluate(predictions: Path, *more: str) -> object:
    return CliRunner().invoke(cli, ["evaluate", "classify", "--score", str(predictions), *more])


def test_the_files(predictions: Path, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="matplotlib is not installed")
    folder = tmp_path / "report"
    result = evaluate(predictions, "--report", str(folder))
    assert result.exit_code == 0, result.exception
    with (folder / "classes.csv").open(newline="") as file:
        assert list(csv.reader(file))[1:] == [
            ["a, b", "0.0000", "0.0000", "0.0000", "1"],
            ["no", "0.5000", "1.0000", "0.6667", "1"],
            ["yes", "0.0000", "0.0000", "0.0000", "1"],
        ]
    with (folder / "confusion.csv").open(newline="") as file:
        assert list(csv.reader(file)) == [
            ["expected \\ found", "a, b", "no", "yes"],
            ["a, b", "0", "0", "1"],
            ["no", "0", "1", "0"],
            ["yes", "0", "1", "0"],
        ]
    assert (folder / "confusion.png").read_bytes().startswith(b"\x89PNG")
    again = evaluate(predictions, "--report", str(folder))
    assert "is not empty" in str(again.exception)
    assert evaluate(predictions, "--report", str(folder), "--overwrite").exit_code == 0


def test_one_row_only(predictions: Path, tmp_path: Path) -> None:
    result = evaluate(predictions, "--score", str(predictions), "--report", str(tmp_path / "r"))
    assert result.exit_code == 2
    assert "--report is for one MODEL on one backend" in result.output
    assert not (tmp_path / "r").exists()


def test_what_has_no_classes(tmp_path: Path) -> None:
    rows = [{"row": 0, "expected": 1.0, "found": 0.5}, {"row": 1, "expected": 2.0, "found": 1.5}]
    (tmp_path / "p.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    arguments = [
        "evaluate",
        "regression",
        "--score",
        str(tmp_path / "p.jsonl"),
        "--report",
        str(tmp_path / "r"),
    ]
    result = CliRunner().invoke(cli, arguments)
    assert "--report is for one class of each text, and for entities" in str(result.exception)
