"""The range that each int8 activation covers, chosen over real tokens.

The vendor's own ranges come from whole calibration rows, padding included, whose hidden states mean nothing
and are often the largest. What lies outside of a range is clipped; padding may be.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, get_args

import numpy as np

Method = Literal["minmax", "mse", "vendor"]
Ranges = Mapping[str, tuple[float, float]]
"""Least and largest value by point of the graph."""

_STEPS = 255
_SHRINK = np.linspace(1.0, 0.3, 15)


def activation_range(values: np.ndarray, method: Method = "mse") -> tuple[float, float]:
    """Least and largest value of an asymmetric int8 range; it always holds 0.

    Args:
        values: The activations, any shape.
        method: `"minmax"`: all of them. `"mse"`: the range of least mean squared error, each end moved
            inwards in turn (Banner et al. 2019 have a closed form for known distributions).

    Raises:
        ValueError: The method is unknown, or `"vendor"`, which is not computed here.
    """
    if method not in get_args(Method) or method == "vendor":
        raise ValueError(f"method must be 'minmax' or 'mse', got {method!r}")
    flat = values.astype(np.float32).ravel()
    low, high = min(float(flat.min(initial=0.0)), 0.0), max(float(flat.max(initial=0.0)), 0.0)
    if method == "minmax" or high - low < 1e-9:
        return low, high
    if (
        flat.size > 120_000
    ):  # every nth is as good an estimate and quicker; n is odd so as to meet all channels
        flat = np.concatenate([flat[:: flat.size // 60_000 | 1], np.sort(flat)[[0, -1]]])
    for _ in range(2):
        low = min((low * shrink for shrink in _SHRINK), key=lambda end: rounding_error(flat, end, high))
        high = min((high * shrink for shrink in _SHRINK), key=lambda end: rounding_error(flat, low, end))
    return low, high


def rounding_error(values: np.ndarray, low: float, high: float) -> float:
    """Mean squared error of values rounded to the 256 steps between low and high."""
    return float(np.mean((rounded(values, low, high) - values) ** 2, dtype=np.float64))


def rounded(values: np.ndarray, low: float, high: float) -> np.ndarray:
    """Values as asymmetric int8 holds them."""
    step = (high - low) / _STEPS
    if step <= 0:
        return np.zeros_like(values)
    zero = np.round(-low / step)
    return np.asarray((np.clip(np.round(values / step) + zero, 0, _STEPS) - zero) * step, values.dtype)
