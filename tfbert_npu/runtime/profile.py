"""What the calls of an artifact take on this board: wall time, the runtime's own time, and the operators'.

Python's share is the difference between the first two. The vendor's wheel gives both in public: the runtime
of an `RKNNLite` says how long its last run took, and a runtime made with `perf_debug` collects a table of its
operators, which librknnrt's own query returns (the wheel's `get_run_perf` fails on it, 2.5.0).
"""

from __future__ import annotations

import ctypes
import statistics
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tfbert_npu.platforms import Platform
from tfbert_npu.runtime import soc
from tfbert_npu.runtime.backend import Shape, ordered
from tfbert_npu.runtime.errors import BackendError, FailedCallError
from tfbert_npu.runtime.files import Artifact, VerifiedFile
from tfbert_npu.runtime.rknn import changed, check_platform, core_mask, equal, open_context, vendor_class
from tfbert_npu.runtime.vendor_log import vendor_log

Inputs = tuple[list[np.ndarray], list[np.ndarray]]
_WARM_UP = 3
_QUERY_PERF_DETAIL = 3  # of rknn_api.h


class _PerfDetail(ctypes.Structure):
    _fields_ = (("perf_data", ctypes.c_void_p), ("data_len", ctypes.c_uint64))


@dataclass(frozen=True)
class Calls:
    """Calls of one shape in one arrangement of cores."""

    shape: Shape
    cores: str
    """`"core 1"`, `"3 cores at once"` (a context on each, all busy) or `"3 cores on one call"`."""
    calls: int
    wall_ms: float
    """The median, Python's share included."""
    runtime_ms: float
    """The median of what librknnrt says that a call took."""
    calls_per_second: float
    """Of all contexts together."""


@dataclass(frozen=True)
class Measurement:
    """What was measured."""

    calls: tuple[Calls, ...]
    tables: dict[Shape, str]
    """librknnrt's table of operators on core 0, as it prints it."""


def profile(artifact: Artifact, calls: int = 30) -> Measurement:
    """Time every shape of an artifact on this board.

    Args:
        artifact: Its `.rknn` files are used one after the other.
        calls: How many of each shape in each arrangement.

    Raises:
        BackendError: This is no board with an NPU, its runtime refuses the model, or a core does not compute.
        ArtifactError: A file is damaged or for another SoC.
    """
    platform = soc.board_platform()
    if platform is None:
        raise BackendError("there is no Rockchip NPU here to measure", "run tfbert-npu profile on the board")
    if not artifact.manifest.rknn_files:
        raise BackendError(f"{artifact.directory} holds no .rknn file", "profile what export rknn wrote")
    measured: list[Calls] = []
    tables: dict[Shape, str] = {}
    for model in artifact.manifest.rknn_files:
        file = VerifiedFile(artifact.directory, model)
        try:
            check_platform(file, platform)
            measured += _timed(file, platform, calls)
            tables.update(_tables(file, core_mask(platform, 0)))
        finally:
            file.close()
    return Measurement(tuple(measured), tables)


def _timed(file: VerifiedFile, platform: Platform, calls: int) -> Iterator[Calls]:
    masks = [core_mask(platform, core) for core in range(platform.cores)]
    for core, mask in enumerate(masks):
        yield from _arrangement(file, [mask], f"core {core}", calls)
    if platform.cores > 1:
        yield from _arrangement(file, masks, f"{platform.cores} cores at once", calls)
        yield from _arrangement(file, [sum(masks)], f"{platform.cores} cores on one call", calls)


def _arrangement(file: VerifiedFile, masks: Sequence[int], name: str, calls: int) -> Iterator[Calls]:
    with ExitStack() as opened:
        contexts = [_Timed(opened.enter_context(_context(file, mask)), name) for mask in masks]
        for shape in file.model.shapes:
            inputs = _inputs(file, shape)
            for context in contexts:
                context.warm_up(inputs, shape)
            threads = [
                threading.Thread(target=context.take, args=(inputs, shape, calls)) for context in contexts
            ]
            began = time.perf_counter()
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            took = time.perf_counter() - began
            for context in contexts:
                if context.failure is not None:
                    raise context.failure
            wall = [value for context in contexts for value in context.wall]
            own = [value for context in contexts for value in context.own]
            yield Calls(
                shape,
                name,
                len(wall),
                statistics.median(wall) * 1e3,
                statistics.median(own) / 1e3,
                len(wall) / took,
            )


@dataclass
class _Timed:
    """A context, with the times of its calls.

    It is given two inputs by turns: the same outputs once more are those of a call that failed, which is
    over at once (see `runtime.rknn`).
    """

    lite: Any
    cores: str
    wall: list[float] = field(default_factory=list)
    """Seconds."""
    own: list[float] = field(default_factory=list)
    """Microseconds."""
    failure: BaseException | None = None
    _last: list[np.ndarray] = field(default_factory=list)

    def warm_up(self, inputs: Inputs, shape: Shape) -> None:
        """Forget the times of another shape, and make some calls."""
        self.wall, self.own = [], []
        for number in range(_WARM_UP):
            self._call(inputs[number % 2], shape)

    def take(self, inputs: Inputs, shape: Shape, calls: int) -> None:
        """Time some calls, in a thread of its own."""
        try:
            for number in range(_WARM_UP, _WARM_UP + calls):
                self.wall.append(self._call(inputs[number % 2], shape))
                self.own.append(float(self.lite.rknn_runtime.get_run_perf()))
        except BaseException as error:  # noqa: BLE001 - raised by who asked for it
            self.failure = error

    def _call(self, arrays: list[np.ndarray], shape: Shape) -> float:
        began = time.perf_counter()
        values = self.lite.inference(inputs=arrays)
        took = time.perf_counter() - began
        if values is None or equal(values, self._last):
            raise FailedCallError(
                f"the NPU did not compute {shape[0]}x{shape[1]} on {self.cores}{vendor_log().last()}",
                "`tfbert-npu doctor` looks at the driver",
            )
        self._last = values
        return took


def _tables(file: VerifiedFile, mask: int) -> dict[Shape, str]:
    """Each shape's operators; a context that collects them is slower, so nothing else is measured in it."""
    tables = {}
    with _context(file, mask, collects=True) as context:
        for shape in file.model.shapes:
            context.inference(inputs=_inputs(file, shape)[0])
            runtime, detail = context.rknn_runtime, _PerfDetail()
            code = runtime.lib.rknn_query(
                ctypes.c_uint64(runtime.context),
                _QUERY_PERF_DETAIL,
                ctypes.byref(detail),
                ctypes.sizeof(detail),
            )
            if code == 0 and detail.perf_data:
                raw = ctypes.string_at(detail.perf_data, detail.data_len)
                tables[shape] = raw.rstrip(b"\0").decode("utf-8", "replace")
    return tables


@contextmanager
def _context(file: VerifiedFile, mask: int, collects: bool = False) -> Iterator[Any]:
    context = open_context(vendor_class(), file, mask, collects=collects)
    try:
        yield context
    finally:
        context.release()


def _inputs(file: VerifiedFile, shape: Shape) -> Inputs:
    """Two inputs without padding; what the ids are does not change the time."""
    given = {spec.name: np.ones(spec.at(shape), spec.dtype) for spec in file.model.inputs}
    arrays = ordered(file.model.inputs, given, shape)
    return arrays, [changed(arrays[0]), *arrays[1:]]
