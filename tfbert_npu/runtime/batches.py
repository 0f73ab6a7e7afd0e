"""Rows of a request as the arrays of one call, and the calls' outputs as the request's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from tfbert_npu.artifact.manifest import TensorSpec
from tfbert_npu.config import BertConfig
from tfbert_npu.runtime.backend import Arrays
from tfbert_npu.runtime.errors import BackendError
from tfbert_npu.runtime.router import Placement


def fit(value: np.ndarray, rows: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Some rows, cut off or padded with 0 to a shape."""
    if value.shape == shape and len(rows) == 1:
        return value
    width = min(value.shape[1], shape[1])
    fitted = np.zeros(shape, value.dtype)
    fitted[: len(rows), :width] = value[rows, :width]
    return fitted


def check_types(types: np.ndarray, config: BertConfig) -> None:
    """Refuse token types that a model without such an input would not see.

    Raises:
        ValueError: One is not 0.
    """
    if config.type_vocab_size and types.any():
        raise ValueError(
            "the artifact takes no input_type_ids, so that it would read a second text as part of the first; "
            "give single texts, or export the model with export_rknn"
        )


def as_integers(name: str, value: np.ndarray, dtype: np.dtype[Any]) -> np.ndarray:
    """As the file takes them; an id that does not fit would turn into another word's.

    Raises:
        ValueError: One does not fit.
    """
    if value.size and value.max() > np.iinfo(dtype).max:
        raise ValueError(
            f"{name} holds {value.max()} and the artifact takes {dtype}, up to {np.iinfo(dtype).max}; export "
            "the model with export_rknn, which takes int32"
        )
    return value.astype(dtype)


def assembled(
    spec: TensorSpec,
    placements: Sequence[Placement],
    parts: Sequence[np.ndarray],
    batch: int,
    length: int,
) -> np.ndarray:
    """One output of the request, float32 [B, ...] or [B, S, ...], from those of its calls."""
    per_token = spec.shape.count(-1) == 2
    wanted = (batch, length, *spec.shape[2:]) if per_token else (batch, *spec.shape[1:])
    if len(parts) == 1 and batch == 1 and parts[0].shape == wanted:
        return parts[0]
    whole = np.zeros(wanted, np.float32)
    for placement, part in zip(placements, parts, strict=True):
        rows = placement.rows
        if per_token:
            width = min(length, placement.shape[1])
            whole[rows, :width] = part[: len(rows), :width]
        else:
            whole[rows] = part[: len(rows)]
    return whole


def check_finite(results: Sequence[Arrays], calls: Sequence[tuple[tuple[int, int], int]]) -> None:
    """Refuse NaN and infinity in rows that count.

    Args:
        results: The outputs of each call.
        calls: For each its shape, and how many of its rows count.

    Raises:
        BackendError: There is one.
    """
    for result, (shape, rows) in zip(results, calls, strict=True):
        for name, value in result.items():
            if not np.isfinite(value[:rows]).all():
                raise BackendError(
                    f"{name} holds NaN or infinity at {shape[0]}x{shape[1]}",
                    "compare the artifact with `tfbert-npu doctor` and export it again",
                )
