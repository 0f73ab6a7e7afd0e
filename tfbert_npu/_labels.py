"""The labels that a Hugging Face `config.json` names."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

MOST_LABELS = 100_000


def read_labels(values: Mapping[str, Any]) -> tuple[str, ...] | None:
    """The labels in the order of their class indices; None where the file has none.

    Raises:
        ValueError: They are no such labels.
    """
    labels = values.get("id2label")
    if labels is None:
        number = values.get("num_labels")
        if number is None:
            return None
        # Before a name is made for each of them.
        if isinstance(number, bool) or not isinstance(number, int) or not 0 < number <= MOST_LABELS:
            raise ValueError(f"num_labels must be a whole number from 1 to {MOST_LABELS}, got {number!r}")
        return tuple(f"LABEL_{index}" for index in range(number))
    try:
        by_index = {int(index): str(label) for index, label in labels.items()}
    except (AttributeError, TypeError, ValueError) as error:
        raise ValueError(f"id2label must map class indices to names, got {labels!r}") from error
    if len(by_index) == len(labels) and sorted(by_index) == list(range(1, len(by_index) + 1)):
        warnings.warn(
            f"id2label numbers its labels from 1, so that the first class has no name; they are left aside, "
            f"and the classes are called LABEL_0 to LABEL_{len(by_index) - 1}",
            stacklevel=4,
        )
        return tuple(f"LABEL_{index}" for index in range(len(by_index)))
    if len(by_index) < len(labels) or sorted(by_index) != list(range(len(by_index))):
        raise ValueError(f"id2label must number its labels 0 to {len(by_index) - 1}, got {sorted(by_index)}")
    return tuple(by_index[index] for index in range(len(by_index)))
