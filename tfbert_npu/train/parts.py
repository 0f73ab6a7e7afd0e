"""The parts of the data: what is trained on, what chooses the epoch, and what is scored in the end."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tfbert_npu.train.data_options import DataOptions
from tfbert_npu.train.split import divide, held_out_rows
from tfbert_npu.train.tasks import Task


@dataclass(frozen=True)
class Parts:
    """The data of a fine-tuning.

    Attributes:
        train: Gives the training examples again.
        rows: Their number.
        labels: How often each label name is in them.
        dev: Examples that choose the epoch.
        test: Examples that are scored in the end.
        split: What was held out of the training file, as numbers of its rows from 0: `held_out`, `test`.
    """

    train: Callable[[], Iterable[Any]]
    rows: int
    labels: Counter[str]
    dev: list[Any]
    test: list[Any]
    split: dict[str, list[int]] = field(default_factory=dict)

    def held_out_from(self, data: DataOptions) -> str:
        """What the epoch is chosen by, in words."""
        where = "held out of " + data.train.name if data.dev is None else "of " + data.dev.name
        return f"{len(self.dev)} examples {where}"


def read_parts(task: Task[Any], data: DataOptions) -> Parts:
    """Read the files of a fine-tuning, and hold out what has no file of its own.

    Raises:
        ValueError: A file is empty, or has too few examples to hold some out.
    """
    dev, test = ([] if path is None else list(task.read(path)) for path in (data.dev, data.test))
    for path, examples in ((data.dev, dev), (data.test, test)):
        if path is not None and not examples:
            raise ValueError(f"{path} is empty: it holds not a single example to evaluate on")
    fractions = {
        "test": 0.0 if data.test is not None else data.test_fraction,
        "held_out": 0.0 if data.dev is not None else data.dev_fraction,
    }
    train: Callable[[], Iterable[Any]] = lambda: task.read(data.train)  # noqa: E731
    labels: Counter[str] = Counter()
    split: dict[str, list[int]] = {}
    if any(fractions.values()):
        examples = list(task.read(data.train))
        kept = list(range(len(examples)))
        left = 1.0  # the part of the data that is in `kept`
        for name, fraction in fractions.items():
            if fraction:
                kept, split[name] = _hold_out(task, examples, kept, fraction / left, data.seed)
                left -= fraction
        held = {name: [examples[row] for row in rows] for name, rows in split.items()}
        dev, test = held.get("held_out", dev), held.get("test", test)
        chosen = [examples[row] for row in kept]
        train = lambda: chosen  # noqa: E731
        # A label that only held-out examples have is one of the data's all the same.
        labels.update({name: 0 for rows in held.values() for e in rows for name in task.names_of(e)})
    rows = 0
    for example in train():
        rows += 1
        labels.update(task.names_of(example))
    if not rows:
        raise ValueError("the data set is empty: it holds not a single example to train on")
    return Parts(train, rows, labels, dev, test, split)


def _hold_out(
    task: Task[Any], examples: Sequence[Any], rows: Sequence[int], fraction: float, seed: int
) -> tuple[list[int], list[int]]:
    """The rows to keep, and those to hold out."""
    classes = [task.class_of(examples[row]) for row in rows]
    groups = [task.group_of(examples[row]) for row in rows]
    known = classes if any(name is not None for name in classes) else None
    return divide(rows, held_out_rows(groups, fraction, seed, known))


def check_known(task: Task[Any], path: Path, examples: Sequence[Any]) -> None:
    """Refuse held-out examples with labels that the task does not know.

    Raises:
        ValueError: There are some; names them.
    """
    unknown = Counter(name for e in examples for name in task.names_of(e) if name not in task.label2id)
    if unknown:
        shown = ", ".join(map(repr, list(unknown)[:5]))
        raise ValueError(
            f"{path} has labels that the training data lacks: {shown}; correct them, add examples, or "
            "name all labels with --labels"
        )
