"""The gate: nothing leaves an export whose simulated outputs are not those of the model."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tfbert_npu.errors import TfbertNpuError

MIN_COSINE = {"fp16": 0.9999, "w8a16": 0.999, "w8a8": 0.99, "w4a16": 0.95}
"""Least cosine that an output may have by default, for each precision."""


class GateError(TfbertNpuError):
    """A compiled model's outputs are not those of the model; the message says where the evidence is."""


@dataclass(frozen=True)
class Agreement:
    """How close one output is to the reference, over real tokens."""

    cosine: float
    """Worst cosine of a text: all its numbers at real tokens as one vector."""
    max_abs: float
    """Largest absolute difference of a number."""
    not_finite: int
    """Numbers that are NaN or infinite."""

    def as_dict(self) -> dict[str, float]:
        """For the manifest."""
        return {"cosine": self.cosine, "max_abs": self.max_abs}


def agreement(got: np.ndarray, expected: np.ndarray, mask: np.ndarray) -> Agreement:
    """Compare one output with its reference.

    Args:
        got: [B, ...], or [B, S, ...] for one value per token.
        expected: The same shape.
        mask: int [B, S]; what an output says at padding means nothing and is left out.

    Raises:
        ValueError: The shapes differ.
    """
    if got.shape != expected.shape:
        raise ValueError(f"an output has shape {got.shape} where the reference has {expected.shape}")
    per_token = got.ndim >= 2 and got.shape[:2] == mask.shape
    worst, largest, broken = 1.0, 0.0, 0
    for row in range(len(got)):
        kept = mask[row].astype(bool) if per_token else slice(None)
        a, b = got[row][kept].astype(np.float64).ravel(), expected[row][kept].astype(np.float64).ravel()
        broken += int(np.count_nonzero(~np.isfinite(a)))
        if broken:
            continue
        norms = np.linalg.norm(a) * np.linalg.norm(b)
        worst = min(worst, float(a @ b / norms) if norms else float(np.array_equal(a, b)))
        largest = max(largest, float(np.max(np.abs(a - b), initial=0.0)))
    return Agreement(
        cosine=-1.0 if broken else worst, max_abs=float("inf") if broken else largest, not_finite=broken
    )


def worst_of(agreements: Iterable[Mapping[str, Agreement]]) -> dict[str, Agreement]:
    """For each output, the worst of several comparisons."""
    worst: dict[str, Agreement] = {}
    for named in agreements:
        for name, one in named.items():
            before = worst.get(name, one)
            worst[name] = Agreement(
                cosine=min(one.cosine, before.cosine),
                max_abs=max(one.max_abs, before.max_abs),
                not_finite=max(one.not_finite, before.not_finite),
            )
    return worst


def failures(agreements: Mapping[str, Agreement], min_cosine: float) -> list[str]:
    """What does not pass, in words; empty if all outputs do."""
    words = []
    for name, one in agreements.items():
        if one.not_finite:
            words.append(f"{name} holds {one.not_finite} numbers that are NaN or infinite")
        elif one.cosine < min_cosine:
            words.append(f"{name} has cosine {one.cosine:.6f}, below {min_cosine:g}")
    return words


def activation_ranges(onnx_path: str, feeds: Sequence[np.ndarray]) -> dict[str, float]:
    """Largest absolute value of every product, sum and normalisation, by onnxruntime in float32.

    Args:
        onnx_path: The model.
        feeds: Its inputs, in its order.

    Returns:
        Operator name -> largest absolute value, without the masked attention scores, which hold the mask's
        -1e4 by design.
    """
    import onnx
    import onnxruntime

    model = onnx.load(onnx_path)
    wanted = {
        node.output[0]: node.name
        for node in model.graph.node
        if node.op_type in ("MatMul", "Add", "LayerNormalization")
        and not node.name.startswith(("attention_bias", "causal_bias"))
        and not node.name.endswith(".scores/Add")
    }
    known = {output.name for output in model.graph.output}
    for value in wanted.keys() - known:
        model.graph.output.append(onnx.helper.make_tensor_value_info(value, onnx.TensorProto.FLOAT, None))
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    names = [value.name for value in session.get_inputs()]
    values = session.run(list(wanted), dict(zip(names, feeds, strict=True)))
    return {
        name: float(np.max(np.abs(value), initial=0.0))
        for name, value in zip(wanted.values(), values, strict=True)
    }


def summary(agreements: Mapping[str, Agreement]) -> dict[str, Any]:
    """Agreements as plain JSON."""
    return {name: one.as_dict() for name, one in agreements.items()}
