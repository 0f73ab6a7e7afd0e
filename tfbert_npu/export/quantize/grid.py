"""The int8 grid of weights.

rknn-toolkit2 2.5.0 gives each output channel the step (max - min) / 255 and a zero point, which no document
says: it was found by feeding single inputs through compiled products (`tests/export/test_rounding.py`).
"""

from __future__ import annotations

import numpy as np

STEPS = 255
"""From the least weight of an output channel to its largest."""


def grid(weight: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Step of each row of weights [out, in], and its least value in steps; 0 is on the grid."""
    low, high = np.minimum(weight.min(axis=1), 0.0), np.maximum(weight.max(axis=1), 0.0)
    step = np.maximum(high - low, 1e-12) / STEPS
    return step, np.round(low / step)


def nearest(weight: np.ndarray) -> np.ndarray:
    """Weights [out, in] rounded as the compiler does it."""
    step, least = grid(weight)
    steps = np.clip(np.round(weight / step[:, None]), least[:, None], least[:, None] + STEPS)
    return np.asarray(steps * step[:, None], weight.dtype)
