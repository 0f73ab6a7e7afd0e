"""What every reader of a foreign format gives, and TensorFlow's checkpoint files, read with care."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tfbert_npu.checkpoints.state import State
from tfbert_npu.config import BertConfig
from tfbert_npu.errors import CheckpointError, require


@dataclass(frozen=True)
class Checkpoint:
    """A model as a reader found it.

    `vocabulary` is the WordPiece vocabulary that lies with the model, if any, and `lower_case` whether text
    is to be lower-cased for it, where the model says so.
    """

    config: BertConfig
    state: State
    vocabulary: Path | None = None
    lower_case: bool | None = None


def variable_shapes(prefix: Path) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the variables of a TensorFlow checkpoint.

    Args:
        prefix: Path of the checkpoint without `.index` and `.data-00000-of-00001`.

    Raises:
        FileNotFoundError: There is no index or one of its data files is missing.
        CheckpointError: The index is damaged.
    """
    return {name: tuple(shape) for name, shape in _open(prefix).get_variable_to_shape_map().items()}


def read_variables(prefix: Path, names: Iterable[str]) -> dict[str, np.ndarray]:
    """Variables of a TensorFlow checkpoint by name.

    Raises:
        FileNotFoundError: There is no index or one of its data files is missing.
        CheckpointError: The checkpoint lacks a variable, or its files are damaged or truncated.
    """
    reader = _open(prefix)
    shapes, dtypes = reader.get_variable_to_shape_map(), reader.get_variable_to_dtype_map()
    wanted = list(dict.fromkeys(names))
    absent = sorted(name for name in wanted if name not in shapes)
    if absent:
        raise CheckpointError(f"{prefix} lacks {', '.join(absent)}")
    promised = sum(dtypes[name].size * _size(shapes[name]) for name in wanted)
    held = sum(file.stat().st_size for file in prefix.parent.glob(f"{prefix.name}.data-*"))
    # TensorFlow allocates what the index promises before it looks whether the data is there.
    if promised > held:
        raise CheckpointError(
            f"{prefix}.data holds {held} bytes but its index promises {promised}", "download it again"
        )
    values = {}
    for name in wanted:
        try:
            value = reader.get_tensor(name)
        except _damage() as error:
            reason = str(error).splitlines()[0][:200]
            raise CheckpointError(f"{prefix} is damaged at {name} ({reason})", "download it again") from error
        # As an array of bytes a string would lose the zeros at its end.
        values[name] = np.asarray(value, dtype=object if isinstance(value, bytes) else None)
    return values


def _open(prefix: Path) -> Any:  # TensorFlow's reader has no public type
    require("tensorflow", "tf")
    import tensorflow as tf

    index = prefix.parent / f"{prefix.name}.index"
    if not index.is_file():
        raise FileNotFoundError(f"{index} is missing; a checkpoint is an index and its data files")
    if not any(prefix.parent.glob(f"{prefix.name}.data-*")):
        raise FileNotFoundError(f"{prefix}.data-* is missing; a checkpoint is an index and its data files")
    try:
        return tf.train.load_checkpoint(str(prefix))
    except _damage() as error:
        reason = str(error).splitlines()[0][:200]
        raise CheckpointError(f"{index} is damaged ({reason})", "download it again") from error


def _damage() -> tuple[type[Exception], ...]:
    """What TensorFlow's reader raises for damaged files; its C++ part maps errors to Python's own."""
    import tensorflow as tf

    return (tf.errors.OpError, RuntimeError, ValueError, IndexError, OverflowError)


def _size(shape: Iterable[int]) -> int:
    size = 1
    for dimension in shape:
        size *= int(dimension)
    return size
