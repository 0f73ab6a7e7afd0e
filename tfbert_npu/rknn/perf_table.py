"""librknnrt's table of what each operator took on a board, and its rows in the form of our timing table."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from tfbert_npu.rknn.cost import Operator, operator_of
from tfbert_npu.rknn.time_model import Kind, work_of_operators

# ID OpType DataType Target InputShape OutputShape Cycles(DDR/NPU/Total) Time(us) MacUsage(%)
# WorkLoad(0/1/2) [TaskNumber] RW(KB) FullName; MacUsage may be empty, WorkLoad has one part for each core.
_ROW = re.compile(
    r"^(?:.*RKNN: \[[\d:.]+\])?\s*(?P<id>\d+)\s+(?P<kind>\S+)\s+(?P<dtype>\S+)\s+(?P<target>CPU|NPU|GPU)\s+"
    r"(?P<inputs>\S+)\s+(?P<outputs>\S+)\s+(?P<ddr>\d+)/(?P<npu>\d+)/(?P<total>\d+)\s+(?P<us>\d+)\s+"
    r"(?:(?P<mac>\\|[\d.]+(?:/[\d.]+)*)\s+)?(?P<load>[\d.]+%(?:/[\d.]+%)*)\s+"
    r"(?:(?P<tasks>\d+)\s+)?(?P<kb>[\d.]+)\s+(?P<name>\S+)\s*$",
    re.MULTILINE,
)
_SHAPE = re.compile(r"\((\d+(?:,\d+)*),?\)")


@dataclass(frozen=True)
class TimedOperator:
    """One row of the table."""

    operator: Operator
    microseconds: int

    @property
    def kind(self) -> Kind | None:
        """Its kind in the time model; None for copies by the CPU and for what the model does not know."""
        work, _ = work_of_operators([self.operator])
        return work[0].kind if work else None

    def timing_row(self) -> dict[str, Any]:
        """`op`, `shapes`, `us` and `dtype` as in `timing/operators.json`."""
        work, _ = work_of_operators([self.operator])
        row: dict[str, Any] = {"op": self.operator.kind, "us": self.microseconds}
        row["dtype"] = self.operator.dtype.lower()
        if work and work[0].kind == "product":
            inputs, outputs, tokens = work[0].sizes
            row["shapes"] = [tokens * work[0].batch, inputs, outputs]
            if work[0].batch > 1:
                row["batch"] = work[0].batch
        elif work:
            row["shapes"] = list(work[0].sizes)
        else:
            shape = _SHAPE.search(self.operator.outputs) or _SHAPE.search(self.operator.inputs)
            row["shapes"] = [math.prod(map(int, shape.group(1).split(",")))] if shape else []
        return row


def parse_perf_table(text: str) -> list[TimedOperator]:
    """The rows of librknnrt's table, empty if there is none."""
    return [TimedOperator(operator_of(row), int(row["us"])) for row in _ROW.finditer(text)]


def by_kind(rows: Iterable[TimedOperator]) -> dict[str, float]:
    """Milliseconds by kind of operator; `"other"` is what the time model does not know."""
    found: dict[str, float] = {}
    for row in rows:
        kind = row.kind or "other"
        found[kind] = found.get(kind, 0.0) + row.microseconds / 1e3
    return found
