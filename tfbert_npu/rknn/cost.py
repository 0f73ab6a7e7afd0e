"""The compiler's own cost report, read from the log of a verbose build.

rknn-toolkit2 prints a table for every shape that it compiles, one row per operator: where it runs, cycles by
memory, by the NPU and in total, and kilobytes read and written. Only matrix products have cycles; what the
others cost shows in the bytes alone. So cycles are a lower bound of the time, and deterministic.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tfbert_npu.platforms import Platform

_ROW = re.compile(
    r"RKNN: \[[\d:.]+\]\s+(?P<id>\d+)\s+(?P<kind>\S+)\s+(?P<dtype>\S+)\s+(?P<target>[A-Z]+)\s+"
    r"(?P<inputs>\S+)\s+(?P<outputs>\S+)\s+(?P<ddr>\d+)/(?P<npu>\d+)/(?P<total>\d+)\s+"
    r"(?:[\d.]+%\s+)?(?P<kb>\d+)\s+(?P<name>\S+)"
)
_HEADER = "Cycles(DDR/NPU/Total)"
_MEMORY = re.compile(r"Total (Internal|Weight) Memory Size: ([\d.]+)KB")
_SHAPE = re.compile(r"\(([\d,]+)\)")

# What the compiler leaves to the CPU without harm: the copies in and out, the look-up of embeddings, and the
# int32 mask on its way to a float.
_HARMLESS_KINDS = ("InputOperator", "OutputOperator", "Gather")
_HARMLESS_NAMES = ("input_mask", "masked_lm_positions")


class CostReportError(ValueError):
    """The compiler's log holds no table, or one of another form."""


@dataclass(frozen=True)
class Operator:
    """One row of the table."""

    kind: str
    dtype: str
    target: str
    """`"NPU"` or `"CPU"`."""
    inputs: str
    """Shapes of its inputs as the compiler prints them."""
    outputs: str
    ddr_cycles: int
    npu_cycles: int
    cycles: int
    """The larger of the two above."""
    kib: int
    """KiB read and written."""
    name: str

    @property
    def macs(self) -> int:
        """Multiply-accumulates of a convolution, into which the compiler turns products with weights."""
        shapes = _SHAPE.findall(self.inputs)
        result = _SHAPE.search(self.outputs)
        if not self.kind.startswith("Conv") or len(shapes) < 2 or result is None:
            return 0
        into, weight, out = (
            [int(size) for size in text.split(",")] for text in (*shapes[:2], result.group(1))
        )
        # Of weights with a step for each group of inputs it prints one group; all of them are computed.
        return math.prod(out) * into[1] * math.prod(weight[2:])

    @property
    def unexpected_on_cpu(self) -> bool:
        """Whether the CPU computes what the NPU should."""
        harmless = (
            self.kind in _HARMLESS_KINDS
            or any(name in self.name for name in _HARMLESS_NAMES)
            or (self.kind == "Reshape" and self.kib < 1)  # a head's handful of numbers
        )
        return self.target != "NPU" and not harmless


@dataclass(frozen=True)
class Cost:
    """The table of one shape."""

    operators: tuple[Operator, ...]
    internal_kib: float
    """Memory for what passes between operators."""
    weight_kib: float
    """Memory for weights."""

    @property
    def cycles(self) -> int:
        """Cycles of all operators on one core."""
        return sum(operator.cycles for operator in self.operators)

    @property
    def kib(self) -> int:
        """KiB read and written, without the copies in and out: the compiler counts only the latter."""
        copies = ("InputOperator", "OutputOperator")
        return sum(operator.kib for operator in self.operators if operator.kind not in copies)

    @property
    def unexpected_on_cpu(self) -> tuple[Operator, ...]:
        """The operators that the CPU computes although the NPU should."""
        return tuple(operator for operator in self.operators if operator.unexpected_on_cpu)

    def summary(self, platform: Platform) -> dict[str, float]:
        """The compiler's figures for `manifest.json`; MB are 2^20 bytes. For times see `time_model`."""
        on_npu = sum(operator.target == "NPU" for operator in self.operators)
        ideal = sum(
            operator.macs / (platform.int8_macs if operator.dtype == "INT8" else platform.fp16_macs)
            for operator in self.operators
        )
        return {
            "cycles": self.cycles,
            "npu_cycles": sum(operator.npu_cycles for operator in self.operators),
            "ddr_cycles": sum(operator.ddr_cycles for operator in self.operators),
            "mb_moved": round(self.kib / 1024, 3),
            "npu_ops": on_npu,
            "cpu_ops": len(self.operators) - on_npu,
            "macs": sum(operator.macs for operator in self.operators),
            "utilisation": round(ideal / self.cycles, 4) if self.cycles else 0.0,
            "internal_mb": round(self.internal_kib / 1024, 3),
            "weight_mb": round(self.weight_kib / 1024, 3),
        }

    def rows(self) -> list[dict[str, Any]]:
        """The operators as plain JSON."""
        return [
            {
                "kind": operator.kind,
                "dtype": operator.dtype,
                "target": operator.target,
                "inputs": operator.inputs,
                "outputs": operator.outputs,
                "ddr_cycles": operator.ddr_cycles,
                "npu_cycles": operator.npu_cycles,
                "cycles": operator.cycles,
                "kib": operator.kib,
                "name": operator.name,
            }
            for operator in self.operators
        ]


def parse_costs(log: str) -> list[Cost]:
    """Read every table of a build's log, in the order in which the compiler printed them.

    Raises:
        CostReportError: There is none, or its rows are not numbered one by one.
    """
    costs = []
    for part in log.replace("\r", "\n").split(_HEADER)[1:]:
        operators: list[Operator] = []
        memory = {"Internal": 0.0, "Weight": 0.0}
        for line in part.splitlines():
            row = _ROW.search(line)
            if row is not None:
                if int(row["id"]) != len(operators):
                    raise CostReportError(f"operator {row['id']} of the compiler's table is out of order")
                operators.append(operator_of(row))
            for name, value in _MEMORY.findall(line):
                memory[name] = float(value)
        if not operators:
            raise CostReportError("the compiler's table has no rows that this package can read")
        costs.append(Cost(tuple(operators), memory["Internal"], memory["Weight"]))
    if not costs:
        raise CostReportError("the compiler printed no table of operators")
    return costs


def cost_at(costs: Sequence[Cost], shape: tuple[int, int]) -> Cost:
    """The table of one (batch, length).

    Raises:
        CostReportError: The compiler printed none for that shape.
    """
    batch, length = shape
    for cost in costs:
        for operator in cost.operators:
            if operator.kind == "InputOperator":
                if operator.outputs.startswith((f"({batch},{length})", f"({batch},{length},")):
                    return cost
                break  # every input of a graph has its batch and length
    raise CostReportError(f"the compiler printed no table for {batch}x{length}")


def operator_of(row: re.Match[str]) -> Operator:
    """The operator that a row of the compiler's or of librknnrt's table names."""
    return Operator(
        kind=row["kind"],
        dtype=row["dtype"],
        target=row["target"],
        inputs=row["inputs"],
        outputs=row["outputs"],
        ddr_cycles=int(row["ddr"]),
        npu_cycles=int(row["npu"]),
        cycles=int(row["total"]),
        kib=round(float(row["kb"])),
        name=row["name"].partition(":")[2] or row["name"],
    )
