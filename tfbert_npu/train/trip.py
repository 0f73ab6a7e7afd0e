"""The whole trip on a small data set of ours: fine-tune, export, and score what the board will compute."""

from __future__ import annotations

import csv
import os
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np

from tfbert_npu._failed_writes import make_directory
from tfbert_npu.artifact.directory import check_target, staged
from tfbert_npu.errors import require
from tfbert_npu.export.onnx_file import export_onnx
from tfbert_npu.export.rknn import export_rknn
from tfbert_npu.rknn.time_model import described
from tfbert_npu.rknn.toolchain.environment import ToolchainError, find_toolchain
from tfbert_npu.tasks.evaluation import Prediction, score
from tfbert_npu.tasks.loading import Backend, TaskModel, load
from tfbert_npu.tasks.running import call
from tfbert_npu.train.batches import BatchOptions
from tfbert_npu.train.data_options import DataOptions
from tfbert_npu.train.fine_tuning import fine_tune
from tfbert_npu.train.options import TrainOptions

LENGTH = 32
"""Tokens of a row: the longest request of the data set has 16."""
EPOCHS = 6
_BATCH = 16
_TEST_OF = 5
"""One of so many texts of each intent is for the test."""


@dataclass(frozen=True)
class Leg:
    """One way to compute the trained model, and what it is worth on the test texts."""

    backend: str
    precision: str
    accuracy: float
    interval: tuple[float, float]
    """Of the accuracy, 95 %."""
    cosine: float
    """Of the worst text's logits with TensorFlow's."""
    megabytes: float
    """Of the network's file."""
    milliseconds: str
    """Predicted for one call on an RK3588, with its error, or `"no data"`."""


@dataclass(frozen=True)
class Trip:
    """What the trip gave."""

    directory: Path
    """Holds `model`, the checkpoint, and `artifact`, what goes onto the board."""
    legs: tuple[Leg, ...]
    training_texts: int
    test_texts: int
    toolchain: str
    """How to get the NPU's compiler where it is missing, else empty."""

    def as_dict(self) -> dict[str, Any]:
        """As plain JSON."""
        return {**asdict(self), "directory": os.fspath(self.directory)}


def household() -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
    """Requests to a device in a household, each with its intent: training texts and test texts.

    Every fifth text of each of the 12 intents is for the test.
    """
    text = files("tfbert_npu.train").joinpath("household.csv").read_text(encoding="utf-8")
    rows = [(row["text"], row["label"]) for row in csv.DictReader(text.splitlines())]
    parts: tuple[list[tuple[str, str]], list[tuple[str, str]]] = ([], [])
    seen: dict[str, int] = {}
    for row in rows:
        seen[row[1]] = seen.get(row[1], 0) + 1
        parts[seen[row[1]] % _TEST_OF == 0].append(row)
    return parts


def whole_trip(
    model: str | os.PathLike[str],
    out: Path,
    *,
    overwrite: bool = False,
    say: Callable[[str], None] = lambda line: None,
) -> Trip:
    """Fine-tune a model on `household`, export it and score it as the board will compute it.

    Args:
        model: A directory or a hub repository.
        out: The directory to make; it appears whole or not at all.
        overwrite: Replace a directory that is not empty.
        say: Called with a line of text as each step begins.

    Returns:
        Accuracy, cosine, size and predicted time of each way to compute it.

    Raises:
        MissingExtraError: TensorFlow or what the export needs is not installed.
        FileExistsError: `out` is not empty and `overwrite` is not set.
    """
    for module, extra in (("tensorflow", "tf"), ("keras", "tf"), ("onnx", "export"), ("onnxruntime", "onnx")):
        require(module, extra)
    out = out.expanduser().absolute()
    check_target(out, overwrite=overwrite)
    training, test = household()
    with staged(out, overwrite=overwrite) as folder:
        _write(folder / "data" / "train.csv", training)
        _write(folder / "data" / "test.csv", test)
        say(f"training on {len(training)} requests with 12 intents")
        fine_tune(
            "classify",
            model,
            DataOptions(folder / "data" / "train.csv", dev_fraction=0.0),
            folder / "model",
            batching=BatchOptions(seq_length=LENGTH, batch_size=_BATCH),
            options=TrainOptions(epochs=EPOCHS, learning_rate=2e-4),
        )
        trained, artifact = folder / "model", folder / "artifact"
        say("scoring it in TensorFlow")
        with load(trained, "classify", "tf") as loaded:
            expected = _logits(loaded, test)
            legs = [_leg("tf", "fp32", loaded, test, expected, expected, trained / "model.safetensors", {})]
        toolchain, cost = "", dict[str, Any]()
        backend: Backend
        try:
            find_toolchain()
        except ToolchainError as error:
            toolchain = str(error.remedy)
            backend, precision, file = "onnx", "fp32", artifact / "model.onnx"
            say("exporting it to ONNX")
            export_onnx(trained, artifact)
        else:
            backend, precision, file = "simulator", "fp16", artifact / "model.rknn"
            manifest = export_rknn(trained, artifact, shapes=((1, LENGTH),), on_progress=say)
            cost |= manifest.cost[f"1x{LENGTH}"]
        say(f"scoring the export on the {backend} backend")
        with load(artifact, "classify", backend) as loaded:
            got = _logits(loaded, test)
            legs.append(_leg(backend, precision, loaded, test, got, expected, file, cost))
    return Trip(out, tuple(legs), len(training), len(test), toolchain)


def _write(path: Path, rows: list[tuple[str, str]]) -> None:
    make_directory(path.parent)
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("text", "label"))
        writer.writerows(rows)


def _logits(model: TaskModel, rows: list[tuple[str, str]]) -> np.ndarray:
    """Logits [N, 12]."""
    inputs = model.tokenizer([text for text, _ in rows], seq_length=LENGTH)
    batches = range(0, len(rows), _BATCH)
    parts = [{name: array[n : n + _BATCH] for name, array in inputs.items()} for n in batches]
    return np.concatenate([call(model.run, part)["logits"] for part in parts])


def _leg(
    backend: str,
    precision: str,
    model: TaskModel,
    rows: list[tuple[str, str]],
    logits: np.ndarray,
    expected: np.ndarray,
    file: Path,
    cost: Mapping[str, Any],
) -> Leg:
    names = [model.labels[best] for best in logits.argmax(axis=1)]
    found = score("classify", [Prediction(label, name) for (_, label), name in zip(rows, names, strict=True)])
    lengths = np.linalg.norm(logits, axis=1) * np.linalg.norm(expected, axis=1)
    return Leg(
        backend,
        precision,
        found.metrics["accuracy"],
        found.interval,
        float(((logits * expected).sum(axis=1) / lengths).min()),
        file.stat().st_size / 2**20,
        described(cost.get("predicted")),
    )
