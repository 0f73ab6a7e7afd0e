"""Between a *state* and the variables of our Keras layers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from tfbert_npu.checkpoints.names import Row, encoder_rows, mlm_rows, pooler_rows
from tfbert_npu.checkpoints.state import State

if TYPE_CHECKING:
    import keras


def rows_of(encoder: Any) -> list[Row]:
    """The rows of the tensors that a `BertEncoder` has, with or without pooler and MLM head."""
    rows = list(encoder_rows(encoder.config))
    if encoder.pooler is not None:
        rows += pooler_rows(encoder.config)
    if encoder.mlm_head is not None:
        rows += mlm_rows()
    return rows


def variable_at(layer: Any, attribute: str) -> keras.Variable:
    """The variable at the end of an attribute path such as `"layers.0.attention.query.kernel"`."""
    for part in attribute.split("."):
        layer = layer[int(part)] if part.isdigit() else getattr(layer, part)
    return layer


def assign(layer: Any, rows: Iterable[Row], state: Mapping[str, np.ndarray]) -> None:
    """Write the tensors of `rows` from `state` into the layer's variables."""
    for row in rows:
        tensor = state[row.name]
        variable_at(layer, row.attribute).assign(tensor.T if row.is_kernel else tensor)


def extract(layer: Any, rows: Iterable[Row]) -> State:
    """Read the layer's variables as a state of float32 arrays."""
    state = {}
    for row in rows:
        tensor = np.asarray(variable_at(layer, row.attribute)).astype(np.float32)
        state[row.name] = np.ascontiguousarray(tensor.T if row.is_kernel else tensor)
    return state
