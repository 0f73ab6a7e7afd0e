"""What is held out of the training data: at random, with every class's share, articles whole."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np


def held_out_rows(
    groups: Sequence[str | None], fraction: float, seed: int, classes: Sequence[str | None] | None = None
) -> list[int]:
    """Indices of the examples to hold out.

    Args:
        groups: For each example the group that a split must not divide; None: the example alone.
        fraction: Part of the groups to hold out; at least one is.
        seed: Of the choice.
        classes: For each example its class; every class is held out in its share, and keeps one example or
            more for training. None: no classes.

    Raises:
        ValueError: There are fewer than two groups.
    """
    names = [str(index) if group is None else f"group {group}" for index, group in enumerate(groups)]
    distinct = list(dict.fromkeys(names))
    if len(distinct) < 2:
        raise ValueError(
            f"{len(distinct)} example or article cannot be split into training and held-out data; "
            "give held-out data of its own, or hold out none"
        )
    random = np.random.default_rng(seed)
    order = [distinct[index] for index in random.permutation(len(distinct))]
    number = min(max(1, round(fraction * len(distinct))), len(distinct) - 1)
    if classes is not None:
        order = _spread(order, dict(zip(names, classes, strict=True)))
    held = set(order[:number])
    return [index for index, name in enumerate(names) if name in held]


def _spread(order: Sequence[str], classes: dict[str, str | None]) -> list[str]:
    """The same names, ordered so that any first part holds each class in its share, its last one late."""
    counts = Counter(classes[name] for name in order)
    seen: Counter[str | None] = Counter()
    keys = {}
    for place, name in enumerate(order):
        kind = classes[name]
        seen[kind] += 1
        last = seen[kind] == counts[kind]
        keys[name] = (last, (seen[kind] - 0.5) / counts[kind], place)
    return sorted(order, key=keys.__getitem__)


def divide(examples: Sequence[Any], held: Sequence[int]) -> tuple[list[Any], list[Any]]:
    """The examples to train on, and those held out."""
    chosen = set(held)
    kept = [example for index, example in enumerate(examples) if index not in chosen]
    return kept, [example for index, example in enumerate(examples) if index in chosen]
