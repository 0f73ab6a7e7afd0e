"""How long an RK3588 takes for a graph, predicted from published measurements of its operators.

The compiler's cycles count matrix products only. This model has one small function for each kind of operator,
fitted by `benchmarks/fit_time_model.py` to `timing/operators.json`: profiles that others published, each with
its source, board, clocks and driver. What it says is tagged [predicted] and has an error bar: the
spread of each kind when the shape in question is left out of the fit, and that of whole models that were
never in it.

Domain: RK3588 and RK3588S, one core, NPU at 1 GHz, memory at 2112 MHz, float16. For int8 products the weights
are halved and the rate doubled, which no published measurement confirms. Other SoCs have no data.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any, Literal

from tfbert_npu.errors import TfbertNpuError
from tfbert_npu.platforms import Platform
from tfbert_npu.rknn.cost import Cost, Operator

Kind = Literal["attention", "product", "norm", "elementwise", "copy", "transpose"]
BoardClass = Literal["fast", "rk1"]

KINDS: tuple[Kind, ...] = ("attention", "product", "norm", "elementwise", "copy", "transpose")
FP16_MACS = 512
_BUFFER = 128 * 1024
"""Bytes of inputs that a product keeps at hand; for each more the weights are read again."""
_INT8_ERROR = 0.25
"""Added to the error of int8 products, because nothing published confirms them."""

_OPERATORS: dict[str, Kind] = {
    "exSDPAttention": "attention",
    "exNorm": "norm",
    **dict.fromkeys(("Add", "Sub", "Mul", "Div", "Cast", "exSwish", "exGelu", "Relu", "Tanh"), "elementwise"),
    **dict.fromkeys(("Slice", "Split", "Concat", "Gather", "InputOperator", "OutputOperator"), "copy"),
    "Transpose": "transpose",
}
_FREE = ("InputOperator", "OutputOperator")
"""Copies by the CPU of some microseconds, outside of what the NPU does."""
_ACTIVATIONS = ("Gelu", "Swish", "Tanh")
_SHAPE = re.compile(r"\(([\d,]+)\)")


class NoTimingsError(TfbertNpuError, ValueError):
    """Nobody has published what the prediction would need."""


@dataclass(frozen=True)
class Work:
    """One operator, as the time model sees it."""

    kind: Kind
    sizes: tuple[int, ...]
    """Attention: heads (of all texts), head size, query tokens, key tokens. Product: inputs, outputs, tokens.
    Others: elements."""
    batch: int = 1
    """Rows, for a product: each of them reads the weights again."""
    int8: bool = False
    activation: bool = False
    """Whether a product computes a GELU or the like of its outputs."""

    def features(self) -> tuple[float, ...]:
        """What the kind's coefficients are multiplied by, in microseconds' units of `timing/model.json`."""
        if self.kind == "attention":
            heads, size, queries, keys = self.sizes
            return 1.0, heads, heads * size * (queries + 2 * keys), heads * queries * keys
        return 1.0, float(math.prod(self.sizes))

    def microseconds(self, coefficients: Sequence[float]) -> float:
        """Time on one core, given the coefficients of the kind."""
        if self.kind == "product":
            return self._product(coefficients)
        return sum(c * x for c, x in zip(coefficients, self.features(), strict=True))

    def _product(self, coefficients: Sequence[float]) -> float:
        call, utilization, gigabytes, activation = coefficients
        inputs, outputs, tokens = self.sizes
        width = 1 if self.int8 else 2
        # The NPU computes 16 tokens at a time.
        macs = self.batch * math.ceil(tokens / 16) * 16 * inputs * outputs
        compute = macs / (FP16_MACS * (2 if self.int8 else 1)) / utilization / 1e3
        loads = self.batch * math.ceil(tokens * inputs * width / _BUFFER)
        moved = inputs * outputs * width * loads + self.batch * tokens * (inputs + outputs) * width
        written = self.batch * tokens * outputs if self.activation else 0
        return call + max(compute, moved / gigabytes / 1e3) + activation * written / 1e3


@dataclass(frozen=True)
class Prediction:
    """Predicted time of one call on one core."""

    milliseconds: float
    error_ms: float
    """One standard deviation."""
    board: BoardClass
    by_kind: dict[Kind, float]
    """Milliseconds by kind of operator."""
    unknown: tuple[str, ...]
    """Kinds of operators that nobody has timed; they are left out, so the time is a lower bound."""
    calibrated: bool
    """False with int8 products."""

    def as_dict(self) -> dict[str, Any]:
        """For the manifest."""
        return {
            "milliseconds": round(self.milliseconds, 3),
            "error_ms": round(self.error_ms, 3),
            "board": self.board,
            "by_kind": {kind: round(value, 3) for kind, value in self.by_kind.items()},
            "unknown": list(self.unknown),
            "calibrated": self.calibrated,
        }


@cache
def fitted() -> Mapping[str, Any]:
    """`timing/model.json`: coefficients, spread and board factors, written by the fit."""
    return json.loads((files("tfbert_npu.rknn") / "timing" / "model.json").read_text(encoding="utf-8"))


def predict(
    work: Iterable[Work],
    platform: Platform,
    *,
    board: BoardClass = "fast",
    unknown: Iterable[str] = (),
    model: Mapping[str, Any] | None = None,
) -> Prediction:
    """Add up the operators of one call.

    Args:
        work: The operators, from `work_of_operators` or `work_of_encoder`.
        platform: Where they run.
        board: `"fast"`: two boards agree on it. `"rk1"`: a Turing RK1, slower at the same clocks.
        unknown: Kinds of operators that `work` lacks.
        model: Another fit than the one in the package.

    Raises:
        NoTimingsError: The platform has no published timings.

    Example:
        >>> from tfbert_npu.platforms import platform_named
        >>> minilm = work_of_encoder(layers=6, hidden=384, heads=12, inner=1536, length=128)
        >>> 11 < predict(minilm, platform_named("rk3588")).milliseconds < 14
        True
    """
    if platform.target != "rk3588":
        raise NoTimingsError(
            f"no operator timings of an {platform.name} are published, so its time cannot be predicted",
            "measure it with tfbert-npu profile on the board",
        )
    model = model or fitted()
    factor = model["boards"][board]
    by_kind: dict[Kind, float] = dict.fromkeys(KINDS, 0.0)
    uncertain = dict.fromkeys(KINDS, 0.0)
    calibrated = True
    for one in work:
        took = one.microseconds(model["coefficients"][one.kind]) * factor[one.kind] / 1e3
        by_kind[one.kind] += took
        # Errors of one kind have one cause, so they add up; those of different kinds do not.
        uncertain[one.kind] += took * (model["left_out_rms"][one.kind] + _INT8_ERROR * one.int8)
        calibrated &= not one.int8
    total = sum(by_kind.values())
    error = math.sqrt(sum(value**2 for value in uncertain.values()) + (model["models_rms"] * total) ** 2)
    return Prediction(total, error, board, by_kind, tuple(sorted(set(unknown))), calibrated)


def predicted(cost: Cost, platform: Platform) -> dict[str, Any]:
    """The prediction for a compiled shape as plain JSON, or `{"reason": ...}` where nobody has measured."""
    work, unknown = work_of_operators(cost.operators)
    try:
        return predict(work, platform, unknown=unknown).as_dict()
    except NoTimingsError as error:
        return {"reason": str(error)}


def described(prediction: Mapping[str, Any] | None) -> str:
    """A prediction for people: `12.9 ± 1.2`, `12.9 ± 1.2 at least` or `no data`."""
    if not prediction or "milliseconds" not in prediction:
        return "no data"
    least = " at least" if prediction["unknown"] else ""
    return f"{prediction['milliseconds']:.1f} ± {prediction['error_ms']:.1f}{least}"


def work_of_encoder(
    *,
    layers: int,
    hidden: int,
    heads: int,
    inner: int,
    length: int,
    batch: int = 1,
    int8: bool = False,
    slices: int = 1,
) -> list[Work]:
    """The operators of a BERT encoder's layers, one call of [batch, length], attention in float16.

    `slices` are the parts of each feed-forward block, see `RknnOptions.ffn_slices`: a product of fewer inputs
    reads its weights fewer times.
    """
    tokens = batch * length * hidden
    layer = [
        *[Work("product", (hidden, hidden, length), batch, int8)] * 3,
        Work("attention", (heads * batch, hidden // heads, length, length)),
        Work("product", (hidden, hidden, length), batch, int8),
        Work("norm", (tokens,)),
        *[Work("product", (hidden, inner // slices, length), batch, int8, activation=True)] * slices,
        *[Work("product", (inner // slices, hidden, length), batch, int8)] * slices,
        *[Work("elementwise", (tokens,))] * (slices - 1),
        Work("norm", (tokens,)),
    ]
    return layer * layers


def work_of_operators(operators: Iterable[Operator]) -> tuple[list[Work], tuple[str, ...]]:
    """The compiler's table as work, and the kinds in it that nobody has timed."""
    work: list[Work] = []
    unknown: list[str] = []
    for operator in operators:
        shapes = [tuple(int(n) for n in text.split(",")) for text in _SHAPE.findall(operator.inputs)]
        result = _SHAPE.search(operator.outputs)
        out = tuple(int(n) for n in result.group(1).split(",")) if result else ()
        if operator.kind in _FREE or operator.target != "NPU":
            continue
        if operator.kind.startswith("Conv") and len(shapes) > 1:
            into, weight = shapes[:2]
            work.append(
                Work(
                    "product",
                    (into[1], weight[0], math.prod(into[2:])),
                    into[0],
                    operator.dtype == "INT8",
                    operator.kind.endswith(_ACTIVATIONS),
                )
            )
        elif operator.kind == "exSDPAttention" and len(shapes) > 1:
            (heads, size, *queries), (_, _, *keys) = shapes[:2]
            work.append(Work("attention", (heads, size, math.prod(queries), math.prod(keys))))
        elif operator.kind == "Reshape":
            if shapes and _moves(shapes[0], out):
                work.append(Work("transpose", (math.prod(out),)))
        elif operator.kind in _OPERATORS:
            work.append(Work(_OPERATORS[operator.kind], (math.prod(out or shapes[0]),)))
        else:
            unknown.append(operator.kind)
    return work, tuple(sorted(set(unknown)))


def _moves(before: Sequence[int], after: Sequence[int]) -> bool:
    """Whether a reshape copies: the NPU keeps channels in groups of 8 [board]."""
    if len(before) == 4 == len(after) and before[2:] == after[2:]:
        return bool(before[1] % 8 or after[1] % 8)
    return True
