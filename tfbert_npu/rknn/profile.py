"""A board's times beside the predicted ones, and as rows of the table that the time model is fitted to."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from tfbert_npu.rknn.perf_table import TimedOperator, by_kind, parse_perf_table
from tfbert_npu.runtime import soc
from tfbert_npu.runtime.doctor import Report, examine
from tfbert_npu.runtime.files import Artifact
from tfbert_npu.runtime.profile import Calls, Measurement
from tfbert_npu.runtime.profile import profile as measure


@dataclass(frozen=True)
class Profile:
    """What `profile` found; without an NPU the predictions alone."""

    artifact: str
    predicted: dict[str, Mapping[str, Any] | None]
    """By shape (`"1x128"`), as the manifest has it; None where nothing is predicted."""
    calls: tuple[Calls, ...] = ()
    operators: dict[str, list[TimedOperator]] = field(default_factory=dict)
    """By shape, on core 0."""
    machine: Report | None = None
    temperatures: dict[str, tuple[float, float]] = field(default_factory=dict)
    """Of each thermal zone before and after, in degrees Celsius."""

    @property
    def measured(self) -> bool:
        """Whether an NPU was measured."""
        return self.machine is not None

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON."""
        return {
            "artifact": self.artifact,
            "tag": "board" if self.measured else "predicted",
            "machine": None if self.machine is None else self.machine.to_dict(),
            "temperatures": self.temperatures,
            "predicted": self.predicted,
            "calls": [asdict(one) for one in self.calls],
            "by_kind": {shape: by_kind(rows) for shape, rows in self.operators.items()},
            "operators": self.timing_rows(),
        }

    def timing_rows(self) -> list[dict[str, Any]]:
        """The operators as rows of `timing/operators.json`: a report in an issue is a row of data."""
        machine = self.machine
        if machine is None:
            return []
        about = {
            "soc": machine.soc,
            "toolkit": machine.library_version,
            "driver": machine.driver_version,
            "npu_mhz": _mhz(machine, ".npu"),
            "ddr_mhz": _mhz(machine, "dmc"),
            "board": machine.board[0] if machine.board else None,
            "source": "tfbert-npu profile",
            "date": datetime.date.today().isoformat(),
            "group": None,
        }
        return [
            {**about, **row.timing_row(), "cores": 1, "samples": 1, "where": f"{shape} {row.operator.name}"}
            for shape, rows in self.operators.items()
            for row in rows
        ]


def profile(artifact: Artifact, calls: int = 30) -> Profile:
    """Measure an artifact on this board; on a machine without an NPU give the predictions alone.

    Args:
        artifact: What `export_rknn` wrote.
        calls: How many of each shape on each arrangement of cores.

    Raises:
        BackendError: The board's runtime refuses the model.
        ArtifactError: A file is damaged, or for another SoC.
    """
    cost = artifact.manifest.cost
    shapes = [f"{b}x{n}" for file in artifact.manifest.rknn_files for b, n in file.shapes]
    predicted = {shape: cost.get(shape, {}).get("predicted") for shape in shapes}
    if soc.board_platform() is None:
        return Profile(str(artifact.directory), predicted)
    before = soc.temperatures()
    found: Measurement = measure(artifact, calls)
    after = soc.temperatures()
    return Profile(
        str(artifact.directory),
        predicted,
        found.calls,
        {f"{b}x{n}": parse_perf_table(text) for (b, n), text in found.tables.items()},
        examine(),
        {zone: (before[zone], after[zone]) for zone in before.keys() & after.keys()},
    )


def _mhz(machine: Report, name: str) -> int | None:
    return next((clock.current_hz // 10**6 for clock in machine.clocks if clock.name.endswith(name)), None)
