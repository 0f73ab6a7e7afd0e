"""The grids on which rknn-toolkit2 2.5.0 puts weights.

No document says them. They were found by feeding single inputs through compiled products, and by giving the
compiler weights that are on a grid already, which it must then leave alone (`tests/export/test_rounding.py`,
`tests/export/test_weight_only.py`).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Grid:
    """Steps of weights [out, in], one size for each output channel or part of it."""

    bits: int
    symmetric: bool = False
    """From -max|w| to max|w|; otherwise from the least to the largest weight, with a zero point."""
    group: int | None = None
    """So many inputs share a step; None for all."""

    @property
    def steps(self) -> int:
        """From the least value to the largest."""
        return 2**self.bits - (2 if self.symmetric else 1)

    def fits(self, weight: np.ndarray) -> bool:
        """Whether the inputs fall into whole groups."""
        return weight.shape[1] % (self.group or 1) == 0

    def of(self, weight: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Size of a step, and the least value in steps, each [out, in]; 0 is on the grid."""
        parts = self._parts(weight)
        low, high = np.minimum(parts.min(axis=2), 0.0), np.maximum(parts.max(axis=2), 0.0)
        if self.symmetric:
            high = np.maximum(-low, high)
            low = -high
        step = np.maximum(high - low, 1e-12) / self.steps
        return self._wide(step, parts), self._wide(np.round(low / step), parts)

    def nearest(self, weight: np.ndarray) -> np.ndarray:
        """Weights [out, in] rounded as the compiler does it."""
        step, least = self.of(weight)
        steps = np.clip(np.round(weight / step), least, least + self.steps)
        return np.asarray(steps * step, weight.dtype)

    def ends(self, weight: np.ndarray) -> np.ndarray:
        """Where the weights are that the grid hangs on: their value in steps, NaN elsewhere.

        As long as they stay, the compiler finds the same grid again.
        """
        parts = self._parts(weight)
        _, least = self.of(weight)
        ends = np.full(parts.shape, np.nan)
        lowest = self._parts(least)[:, :, :1]
        if self.symmetric:
            largest = np.abs(parts).argmax(axis=2, keepdims=True)
            sign = np.sign(np.take_along_axis(parts, largest, axis=2))
            np.put_along_axis(ends, largest, -sign * lowest, axis=2)
        else:
            # Where all weights have one sign, the other end is 0, and none of them has to be there.
            for sign, where, end in (
                (-1, parts.argmin(axis=2, keepdims=True), lowest),
                (1, parts.argmax(axis=2, keepdims=True), lowest + self.steps),
            ):
                outside = sign * np.take_along_axis(parts, where, axis=2) > 0
                kept = np.take_along_axis(ends, where, axis=2)
                np.put_along_axis(ends, where, np.where(outside, end, kept), axis=2)
        return ends.reshape(weight.shape)

    def _parts(self, weight: np.ndarray) -> np.ndarray:
        """[out, groups, inputs of a group]."""
        return weight.reshape(len(weight), -1, self.group or weight.shape[1])

    @staticmethod
    def _wide(values: np.ndarray, parts: np.ndarray) -> np.ndarray:
        return np.repeat(values, parts.shape[2], axis=1)


INT8 = Grid(8)
"""Of products in int8 (`w8a8`)."""

WEIGHT_ONLY = {"w8a16": Grid(8, symmetric=True), "w4a16": Grid(4, symmetric=True, group=32)}
"""Of products whose inputs stay in float16."""
