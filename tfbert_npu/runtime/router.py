"""Which rows of a request are computed together, and at which of the compiled shapes.

Every row goes by its own length, not by the width to which the caller padded it: padding that nobody
computes costs nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

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
    if len(mask) == 1:
        (places,) = mask[0].nonzero()
        return np.array([places[-1] + 1 if len(places) else mask.shape[1]])
    real = mask != 0
    return mask.shape[1] - np.argmax(real[:, ::-1], axis=1)


def place(lengths: Sequence[int] | np.ndarray, shapes: Sequence[Shape], cores: int = 1) -> list[Placement]:
    """Spread rows over calls so that few tokens are computed.

    The longest row that is left decides on the next call's length; of the shapes that hold it, the one that
    computes the fewest tokens for each real one wins. Among equals it is the one with the larger batch,
    unless smaller ones give more cores something to do.

    Args:
        lengths: Real tokens of each row; none may be longer than the longest shape.
        shapes: (batch, length) pairs; empty for a backend that takes any.
        cores: How many calls can run at the same time.
    """
    if len(lengths) == 1 and shapes:
        return [_alone(int(lengths[0]), tuple(shapes), cores)]
    lengths = np.asarray(lengths)
    order = np.argsort(-lengths, kind="stable")
    placements = []
    start = 0
    while start < len(order):
        left = lengths[order[start:]]
        shape = _best(shapes, left, cores) if shapes else _free(int(left[0]), len(left))
        rows = order[start : start + shape[0]]
        placements.append(Placement(rows, shape))
        start += len(rows)
    return placements


@lru_cache(4096)
def _alone(length: int, shapes: tuple[Shape, ...], cores: int) -> Placement:
    """The one row of a request: by far the most frequent, and there are few lengths."""
    rows = np.zeros(1, np.intp)
    rows.flags.writeable = False  # every such request has this one
    return Placement(rows, _best(shapes, np.array([length]), cores))


def _best(shapes: Sequence[Shape], left: np.ndarray, cores: int) -> Shape:
    """The shape of the next call, for lengths in falling order."""

    def cost(shape: Shape) -> tuple[float, int]:
        batch, tokens = shape
        spread = -(-len(left) // batch) >= cores
        return batch * tokens / float(left[:batch].sum()), -batch if spread else batch

    return min((shape for shape in shapes if shape[1] >= left[0]), key=cost)


def _free(length: int, left: int) -> Shape:
    return min(left, _FREE_BATCH), -(-length // _FREE_LENGTH_MULTIPLE) * _FREE_LENGTH_MULTIPLE
