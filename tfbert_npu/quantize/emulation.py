"""int8 products emulated in numpy: quick enough to choose a transform's parameters by measurement."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tfbert_npu.quantize.grid import INT8
from tfbert_npu.quantize.ranges import activation_range, rounded

_MOST_TOKENS = 400


def product_error(x: np.ndarray, weights: Sequence[np.ndarray]) -> float:
    """Error power of x W^T in int8 relative to the product's variance, the mean over several W.

    Args:
        x: float32 [tokens, in]; with many tokens, a part of them.
        weights: float32 [out, in] each.
    """
    x = x[:: len(x) // _MOST_TOKENS + 1]
    kept = rounded(x, *activation_range(x, "mse"))
    errors = []
    for weight in weights:
        exact = x @ weight.T
        difference = kept @ INT8.nearest(weight).T - exact
        spread = exact - exact.mean(axis=0)
        errors.append(float(np.sum(difference**2) / max(np.sum(spread**2), 1e-30)))
    return float(np.mean(errors))
