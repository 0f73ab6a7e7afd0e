"""Intervals by the bootstrap: what a metric would be on other draws of the same examples."""

from __future__ import annotations

import numpy as np

_RESAMPLES, _LEVEL = 1000, 0.95


def interval_of(units: np.ndarray) -> tuple[float, float]:
    """The 95 % bootstrap interval of a metric of the sums of [N, K]; with two, of the second by the first."""
    (sums,) = resampled(units)
    return interval(main_metric(sums))


def main_metric(sums: np.ndarray) -> np.ndarray:
    """An accuracy, an F1 or a correlation, as the number of sums says: of [R, K] a value each [R]."""
    columns = sums.T
    with np.errstate(divide="ignore", invalid="ignore"):
        if len(columns) == 2:
            return columns[1] / columns[0]
        if len(columns) == 3:
            right, expected, found = columns
            return np.nan_to_num(2 * right / (expected + found))
        n, x, y, xx, yy, xy = columns
        return (n * xy - x * y) / np.sqrt((n * xx - x * x) * (n * yy - y * y))


def resampled(*units: np.ndarray) -> list[np.ndarray]:
    """The sums of each of the units [N, K] in each resample, the same for all of them: float64 [R, K]."""
    examples, random = len(units[0]), np.random.default_rng(0)
    sums: list[list[np.ndarray]] = [[] for _ in units]
    for _ in range(_RESAMPLES):  # one after the other: all of them at once are gigabytes for 100 000 examples
        drawn = random.multinomial(examples, np.full(examples, 1 / examples)).astype(float)
        for kept, unit in zip(sums, units, strict=True):
            kept.append(drawn @ unit)
    return [np.stack(kept) for kept in sums]


def interval(values: np.ndarray) -> tuple[float, float]:
    """The middle 95 % of the values of the resamples."""
    if not np.isfinite(values).any():
        return np.nan, np.nan
    low, high = np.nanquantile(values, [(1 - _LEVEL) / 2, (1 + _LEVEL) / 2])
    return float(low), float(high)
