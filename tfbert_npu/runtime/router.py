"""Which rows of a request are computed together, and at which of the compiled shapes.

Every row goes by its own length, not by the width to which the caller padded it: padding that nobody
computes costs nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tfbert_npu.runtime.backend import Shape

# For a backend that takes any shape: few lengths, and batches that fit a cache.
_FREE_LENGTH_MULTIPLE = 16
_FREE_BATCH = 32


@dataclass(frozen=True)
class Placement:
    """Rows of a request that one call computes."""

    rows: np.ndarray
    """Their numbers in the request, int [n] with n up to the shape's batch."""
    shape: Shape

    @property
    def computed_tokens(self) -> int:
        """Tokens of the call, padding included."""
        return self.shape[0] * self.shape[1]


def real_lengths(mask: np.ndarray) -> np.ndarray:
    """Tokens of each row up to its last real one, int [B].

    A row without any real token counts as full: its softmax goes over all places alike, so its result
    depends on their number.

    Args:
        mask: int [B, S].
    """
    real = mask != 0
    lengths = mask.shape[1] - np.argmax(real[:, ::-1], axis=1)
    return lengths


def place(lengths: Sequence[int] | np.ndarray, shapes: Sequence[Shape], cores: int = 1) -> list[Placement]:
    """Spread rows over calls so that few tokens are computed.

    The longest row that is left decides on the next call's length; of the shapes that hold it, the one with
    the fewest tokens per row taken wins. Among equals it is the one with the larger batch, unless smaller
    ones give more cores something to do.

    Args:
        lengths: Real tokens of each row; none may be longer than the longest shape.
        shapes: (batch, length) pairs; empty for a backend that takes any.
        cores: How many calls can run at the same time.
    """
    lengths = np.asarray(lengths)
    if len(lengths) == 1 and shapes:  # by far the most frequent request
        return [Placement(np.zeros(1, np.intp), _best(shapes, int(lengths[0]), 1, cores))]
    order = np.argsort(-lengths, kind="stable")
    placements = []
    start = 0
    while start < len(order):
        left = len(order) - start
        longest = int(lengths[order[start]])
        shape = _best(shapes, longest, left, cores) if shapes else _free(longest, left)
        rows = order[start : start + shape[0]]
        placements.append(Placement(rows, shape))
        start += len(rows)
    return placements


def _best(shapes: Sequence[Shape], length: int, left: int, cores: int) -> Shape:
    def cost(shape: Shape) -> tuple[float, int]:
        batch, tokens = shape
        per_row = batch * tokens / min(batch, left)
        spread = -(-left // batch) >= cores
        return per_row, -batch if spread else batch

    return min((shape for shape in shapes if shape[1] >= length), key=cost)


def _free(length: int, left: int) -> Shape:
    return min(left, _FREE_BATCH), -(-length // _FREE_LENGTH_MULTIPLE) * _FREE_LENGTH_MULTIPLE
