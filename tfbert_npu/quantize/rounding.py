"""Weights put on the compiler's grid so that a product's outputs, rather than its weights, change least.

Rounding each weight to the nearest step is best only if the inputs are independent of each other. GPTQ
(Frantar et al. 2023) rounds one input's column after the other and lets the columns that follow make up for
the error, weighted by the inputs' second moments. What error remains on average goes into the bias (Nagel et
al. 2019).

The compiler finds our grid again because the weights that it hangs on are kept at its ends.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from tfbert_npu.config import BertConfig
from tfbert_npu.quantize.activations import Activations
from tfbert_npu.quantize.grid import INT8, Grid
from tfbert_npu.quantize.ranges import rounded
from tfbert_npu.quantize.recipe import Operator, operators

_DAMPING = 0.01
_BLOCK = 128
_MOST_TOKENS = 4096


def round_weights(
    state: Mapping[str, np.ndarray],
    config: BertConfig,
    seen: Activations,
    ranges: Mapping[str, tuple[float, float]] | None,
    float16: frozenset[Operator] = frozenset(),
    grid: Grid = INT8,
) -> dict[str, np.ndarray]:
    """A state whose quantized products have rounded weights and corrected biases.

    Args:
        state: The transformed model's.
        config: Its architecture.
        seen: Its activations on the calibration texts.
        ranges: Of the activations, so that inputs are taken as int8 holds them; None if they stay in float16.
        float16: Products that are left as they are.
        grid: The compiler's; products that do not fit its groups are left to the compiler.
    """
    out = dict(state)
    for operator in operators(config):
        if operator in float16:
            continue
        name, point = operator.weights, operator.reads
        weight = state[f"{name}.weight"]
        if not grid.fits(weight):
            continue
        exact = seen[point][:: len(seen[point]) // _MOST_TOKENS + 1]
        held = exact if ranges is None else rounded(exact, *ranges[point])
        out[f"{name}.weight"] = rounded_weight = gptq(weight, held, grid)
        shift = exact.mean(axis=0) @ weight.T - held.mean(axis=0) @ rounded_weight.T
        out[f"{name}.bias"] = np.asarray(state[f"{name}.bias"] + shift, np.float32)
    return out


def gptq(weight: np.ndarray, x: np.ndarray, grid: Grid = INT8, damping: float = _DAMPING) -> np.ndarray:
    """Weights on a grid.

    Args:
        weight: float32 [out, in].
        x: Inputs of the product, float32 [tokens, in].
        grid: Where they may lie.
        damping: Share of the mean second moment that is added to each, so that inputs which were never seen
            have one too.

    Returns:
        float32 [out, in]; the weights on which the grid hangs stay where they were.
    """
    columns = weight.shape[1]
    moments = x.astype(np.float64).T @ x.astype(np.float64) / len(x)
    moments[np.diag_indices(columns)] += damping * np.trace(moments) / columns + 1e-12
    # The largest inputs first: the many small ones that follow make up for them.
    order = np.argsort(-np.diag(moments), kind="stable")
    rest = weight[:, order].astype(np.float64)
    upper = np.linalg.cholesky(np.linalg.inv(moments[np.ix_(order, order)])).T
    step, least = (values[:, order] for values in grid.of(weight.astype(np.float64)))
    ends = grid.ends(weight.astype(np.float64))[:, order]
    out = np.empty_like(rest)
    for first in range(0, columns, _BLOCK):
        last = min(first + _BLOCK, columns)
        block, errors = rest[:, first:last].copy(), np.empty((len(rest), last - first))
        for index in range(last - first):
            column = first + index
            low, end = least[:, column], ends[:, column]
            steps = np.clip(np.round(block[:, index] / step[:, column]), low, low + grid.steps)
            out[:, column] = np.where(np.isnan(end), steps, end) * step[:, column]
            errors[:, index] = (block[:, index] - out[:, column]) / upper[column, column]
            block[:, index:] -= np.outer(errors[:, index], upper[column, column:last])
        rest[:, last:] -= errors @ upper[first:last, last:]
    result = np.empty_like(out)
    result[:, order] = out
    return result.astype(np.float32)
