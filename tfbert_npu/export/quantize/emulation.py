"""int8 products emulated in numpy: quick enough to choose a transform's parameters by measurement."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tfbert_npu.export.quantize.ranges import activation_range, rounded

_WEIGHT_STEPS = 127
_MOST_TOKENS = 400


def rounded_weights(weight: np.ndarray) -> np.ndarray:
    """Weights [out, in] as symmetric int8 with a scale per output channel holds them."""
    step = np.maximum(np.abs(weight).max(axis=1, keepdims=True), 1e-12) / _WEIGHT_STEPS
    return np.asarray(np.round(weight / step) * step, weight.dtype)


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
        difference = kept @ rounded_weights(weight).T - exact
        spread = exact - exact.mean(axis=0)
        errors.append(float(np.sum(difference**2) / max(np.sum(spread**2), 1e-30)))
    return float(np.mean(errors))
