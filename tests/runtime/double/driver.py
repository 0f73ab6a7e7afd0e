"""librknnrt.so and the NPU below it: the C functions that the wheel calls, over a small machine that can fail.

What holds for the real one holds here: a context is no safe place for two threads, since inputs, outputs and
the current shape belong to the context and not to the call; a context lives until it is destroyed.
"""

from __future__ import annotations

import contextlib
import ctypes
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from .model_file import Compute, FakeModel
from .structures import (
    COLLECT_PERFORMANCE,
    NUMBERS,
    QUERY_CURRENT_INPUT_ATTR,
    QUERY_CURRENT_OUTPUT_ATTR,
    QUERY_IN_OUT_NUM,
    QUERY_INPUT_ATTR,
    QUERY_INPUT_DYNAMIC_RANGE,
    QUERY_OUTPUT_ATTR,
    QUERY_PERF_DETAIL,
    QUERY_PERF_RUN,
    QUERY_SDK_VERSION,
    TYPES,
    InOutNum,
    Input,
    InputRange,
    Output,
    PerfDetail,
    PerfRun,
    SdkVersion,
    TensorAttr,
)

SUCCESS, ERR_FAIL, ERR_PARAM_INVALID, ERR_MODEL_INVALID, ERR_CTX_INVALID = 0, -1, -5, -6, -7
AUTO = 0


@dataclass
class Faults:
    """What goes wrong, until it is taken back."""

    init_code: int = SUCCESS
    """What rknn_init returns."""
    run_code: int = SUCCESS
    """What rknn_run returns; the wheel ignores it."""
    outputs_code: int = SUCCESS
    """What rknn_outputs_get returns; the wheel makes None of it."""
    not_a_number: bool = False
    lost_dimension: bool = False
    """Outputs of another shape than the model's."""
    failing: Callable[[int], bool] = lambda core: False
    """By core: whether a run there fails and leaves the buffers as they are, or as zeros before the first."""
    hanging: dict[int, threading.Event] = field(default_factory=dict)
    """By core: a run there waits for the event."""


@dataclass
class _Open:
    model: FakeModel
    compute: Compute
    shape: int = 0
    mask: int = AUTO
    inputs: list[np.ndarray | None] = field(default_factory=list)
    outputs: list[np.ndarray] = field(default_factory=list)
    kept: list[Any] = field(default_factory=list)
    collects: bool = False


class Driver:
    """The library: its functions are callbacks of ctypes, found under their C names.

    Args:
        cores: Cores of the NPU.
        version: Version of librknnrt.so; it refuses newer models.
        follows_shape: Whether `RKNN_QUERY_OUTPUT_ATTR`, by which the wheel knows the outputs' shapes, speaks of
            the shape set last or of the first one; the vendor's documents do not say.
        run_seconds: What one call takes on a core.
    """

    def __init__(
        self, cores: int = 3, version: str = "2.5.0", run_seconds: float = 0.0, follows_shape: bool = True
    ) -> None:
        self.cores = cores
        self.version = version
        self.run_seconds = run_seconds
        self.follows_shape = follows_shape
        self.faults = Faults()
        self.open: dict[int, _Open] = {}
        self.inits = 0
        self.calls_on: dict[int, int] = {}
        self.spans: list[tuple[float, float]] = []
        """When each call began and ended on its core, by `time.perf_counter`."""
        self.run_microseconds = 0
        """What it says that a call took, of its own; with it, `operator_table` of a context that collects."""
        self.operator_table = ""
        self.seen: list[list[tuple[str, tuple[int, ...]]]] = []
        self._next = 1
        self._lock = threading.Lock()
        self._cores = [threading.Lock() for _ in range(cores)]
        void, uint, ulong, integer = ctypes.c_void_p, ctypes.c_uint, ctypes.c_ulong, ctypes.c_int
        for name, arguments in (
            ("rknn_init", (void, void, uint, uint, void)),
            ("rknn_destroy", (ulong,)),
            ("rknn_query", (ulong, integer, void, uint)),
            ("rknn_set_core_mask", (ulong, uint)),
            ("rknn_set_input_shapes", (ulong, uint, void)),
            ("rknn_inputs_set", (ulong, uint, void)),
            ("rknn_run", (ulong, void)),
            ("rknn_outputs_get", (ulong, uint, void, void)),
            ("rknn_outputs_release", (ulong, uint, void)),
        ):
            function = getattr(self, f"_{name}")
            setattr(self, name, ctypes.CFUNCTYPE(integer, *arguments)(function))

    def _rknn_init(self, context: int, model: int, size: int, flags: int, extend: int) -> int:
        if self.faults.init_code != SUCCESS:
            return self.faults.init_code
        parsed = FakeModel.parse(ctypes.string_at(model, size))
        if parsed is None or _numbers(parsed.version) > _numbers(self.version):
            return ERR_MODEL_INVALID
        opened = _Open(parsed, parsed.compute())
        opened.inputs = [None] * len(parsed.inputs)
        opened.collects = bool(flags & COLLECT_PERFORMANCE)
        with self._lock:
            self.inits += 1
            number, self._next = self._next, self._next + 1
            self.open[number] = opened
        ctypes.c_ulong.from_address(context).value = number
        return SUCCESS

    def _rknn_destroy(self, context: int) -> int:
        with self._lock:
            return SUCCESS if self.open.pop(context, None) is not None else ERR_CTX_INVALID

    def _rknn_query(self, context: int, command: int, info: int, size: int) -> int:
        opened = self.open.get(context)
        if opened is None:
            return ERR_CTX_INVALID
        model = opened.model
        if command == QUERY_IN_OUT_NUM:
            numbers = InOutNum.from_address(info)
            numbers.n_input, numbers.n_output = len(model.inputs), len(model.outputs)
        elif command == QUERY_SDK_VERSION:
            version = SdkVersion.from_address(info)
            version.api_version = f"{self.version} (429f97ae6b@2025-04-09T09:09:27)".encode()
            version.drv_version = b"0.9.8"
        elif command == QUERY_PERF_RUN and opened.outputs:
            PerfRun.from_address(info).run_duration = self.run_microseconds
        elif command == QUERY_PERF_DETAIL and opened.outputs and opened.collects:
            detail = PerfDetail.from_address(info)
            opened.kept.append(table := ctypes.create_string_buffer(self.operator_table.encode()))
            detail.perf_data, detail.data_len = ctypes.addressof(table), len(table)
        elif command in (QUERY_INPUT_ATTR, QUERY_CURRENT_INPUT_ATTR):
            which = opened.shape if command == QUERY_CURRENT_INPUT_ATTR else 0
            return _describe(info, size, model.inputs, model.input_shapes[which])
        elif command in (QUERY_OUTPUT_ATTR, QUERY_CURRENT_OUTPUT_ATTR):
            which = opened.shape if command == QUERY_CURRENT_OUTPUT_ATTR or self.follows_shape else 0
            shapes = model.output_shapes[which]
            if self.faults.lost_dimension:
                shapes = [shape[1:] for shape in shapes]
            return _describe(info, size, model.outputs, shapes)
        elif command == QUERY_INPUT_DYNAMIC_RANGE and len(model.input_shapes) > 1:
            return _describe_range(info, model)
        else:
            return ERR_PARAM_INVALID
        return SUCCESS

    def _rknn_set_core_mask(self, context: int, mask: int) -> int:
        opened = self.open.get(context)
        if opened is None:
            return ERR_CTX_INVALID
        single = self.cores == 1 and mask != AUTO
        if single or mask >= 1 << self.cores:
            return ERR_PARAM_INVALID
        opened.mask = mask
        return SUCCESS

    def _rknn_set_input_shapes(self, context: int, count: int, attributes: int) -> int:
        opened = self.open.get(context)
        if opened is None:
            return ERR_CTX_INVALID
        given = (TensorAttr * count).from_address(attributes)
        shapes = [tuple(attr.dims[: attr.n_dims]) for attr in given]
        if shapes not in opened.model.input_shapes:
            return ERR_PARAM_INVALID
        opened.shape = opened.model.input_shapes.index(shapes)
        return SUCCESS

    def _rknn_inputs_set(self, context: int, count: int, inputs: int) -> int:
        opened = self.open.get(context)
        if opened is None:
            return ERR_CTX_INVALID
        for given in (Input * count).from_address(inputs):
            dtype = TYPES.get(given.type)
            name, wanted = opened.model.inputs[given.index]
            shape = opened.model.input_shapes[opened.shape][given.index]
            if dtype is None or given.size < int(np.prod(shape)) * np.dtype(dtype).itemsize:
                return ERR_PARAM_INVALID
            raw = ctypes.string_at(given.buf, given.size)
            elements = np.frombuffer(raw, dtype)[: int(np.prod(shape))]
            # The library converts to the model's own dtype, as C does.
            opened.inputs[given.index] = elements.astype(wanted).reshape(shape)
            with self._lock:
                self.seen = [*self.seen[-8:], [(f"{name}:{dtype}", shape)]]
        return SUCCESS

    def _rknn_run(self, context: int, extend: int) -> int:
        opened = self.open.get(context)
        if opened is None:
            return ERR_CTX_INVALID
        if self.faults.run_code != SUCCESS:
            return self.faults.run_code
        with self._core(opened.mask) as core:
            hanging = self.faults.hanging.get(core)
            if hanging is not None:
                hanging.wait()
            began = time.perf_counter()
            if self.run_seconds:
                time.sleep(self.run_seconds)
            arrays = [array for array in opened.inputs if array is not None]
            if len(arrays) != len(opened.inputs):
                return ERR_FAIL
            outputs = opened.compute(arrays)
            if self.faults.failing(core):
                if [v.shape for v in outputs] != [v.shape for v in opened.outputs]:
                    opened.outputs = [np.zeros_like(value) for value in outputs]
                return ERR_FAIL
            # Where another thread's call in the same context would come between.
            time.sleep(0)
            opened.outputs = (
                [value * np.float32(np.nan) for value in outputs] if self.faults.not_a_number else outputs
            )
        with self._lock:
            self.spans.append((began, time.perf_counter()))
            self.calls_on[core] = self.calls_on.get(core, 0) + 1
        return SUCCESS

    def _rknn_outputs_get(self, context: int, count: int, outputs: int, extend: int) -> int:
        opened = self.open.get(context)
        if opened is None:
            return ERR_CTX_INVALID
        if self.faults.outputs_code != SUCCESS or not opened.outputs:
            return self.faults.outputs_code or ERR_FAIL
        for place, wanted in enumerate((Output * count).from_address(outputs)):
            value = np.ascontiguousarray(opened.outputs[place], np.float32)
            if wanted.is_prealloc:
                if wanted.size < value.nbytes:
                    return ERR_PARAM_INVALID
                ctypes.memmove(wanted.buf, value.ctypes.data, value.nbytes)
            else:
                opened.kept.append(value)
                wanted.buf, wanted.size = value.ctypes.data, value.nbytes
        return SUCCESS

    def _rknn_outputs_release(self, context: int, count: int, outputs: int) -> int:
        opened = self.open.get(context)
        if opened is None:
            return ERR_CTX_INVALID
        opened.kept.clear()
        return SUCCESS

    @contextlib.contextmanager
    def _core(self, mask: int) -> Iterator[int]:
        cores = [core for core in range(self.cores) if mask >> core & 1] or [0]
        with self._cores[cores[0]]:
            yield cores[0]


def _describe(info: int, size: int, tensors: list[tuple[str, str]], shapes: list[tuple[int, ...]]) -> int:
    # Older callers give a structure that ends before the strides.
    attribute = TensorAttr.from_address(info)
    index = attribute.index
    if index >= len(tensors) or size < TensorAttr.w_stride.offset:
        return ERR_PARAM_INVALID
    name, dtype = tensors[index]
    shape = shapes[index]
    attribute.n_dims = len(shape)
    for place, length in enumerate(shape):
        attribute.dims[place] = length
    attribute.name = name.encode()
    attribute.n_elems = int(np.prod(shape))
    attribute.size = attribute.n_elems * np.dtype(dtype).itemsize
    attribute.type = NUMBERS[dtype]
    attribute.fmt = 3  # undefined: no image
    return SUCCESS


def _describe_range(info: int, model: FakeModel) -> int:
    described = InputRange.from_address(info)
    index = described.index
    if index >= len(model.inputs):
        return ERR_PARAM_INVALID
    described.name = model.inputs[index][0].encode()
    described.shape_number = len(model.input_shapes)
    described.fmt = 3
    described.n_dims = len(model.input_shapes[0][index])
    for row, shapes in enumerate(model.input_shapes):
        for place, length in enumerate(shapes[index]):
            described.dyn_range[row][place] = length
    return SUCCESS


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split("."))
