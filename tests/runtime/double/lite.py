"""`rknnlite.api.RKNNLite` as the wheel behaves, over a `Driver`: return codes, None, and no lock anywhere."""

from __future__ import annotations

import ctypes
import logging
import sys
import traceback
import types
from pathlib import Path
from typing import Any

import numpy as np

from .driver import Driver
from .structures import (
    COLLECT_PERFORMANCE,
    NUMBERS,
    QUERY_IN_OUT_NUM,
    QUERY_INPUT_ATTR,
    QUERY_INPUT_DYNAMIC_RANGE,
    QUERY_OUTPUT_ATTR,
    QUERY_PERF_RUN,
    QUERY_SDK_VERSION,
    InOutNum,
    Input,
    InputRange,
    Output,
    PerfRun,
    SdkVersion,
    TensorAttr,
)

_log = logging.getLogger("acuityLogger")
_log.propagate = False
if not _log.handlers:
    _log.addHandler(logging.StreamHandler(sys.stderr))


def install(driver: Driver) -> types.ModuleType:
    """A module that passes for `rknnlite.api`, for `sys.modules`."""
    module = types.ModuleType("rknnlite.api")
    module.RKNNLite = type("RKNNLite", (_Lite,), {"driver": driver})  # type: ignore[attr-defined]
    return module


class _Lite:
    driver: Driver
    NPU_CORE_AUTO, NPU_CORE_0, NPU_CORE_1, NPU_CORE_2 = 0, 1, 2, 4

    def __init__(self, verbose: bool = False, verbose_file: str | None = None) -> None:
        self.rknn_data: bytes | None = None
        self.rknn_runtime: _Runtime | None = None
        self.root_dir = "rknnlite"

    def load_rknn(self, path: str, key_path: str | None = None) -> int:
        if not Path(path).exists():
            _log.error("Invalid RKNN model path: %s", path)
            return -1
        self.rknn_data = Path(path).read_bytes()
        return 0

    def init_runtime(
        self,
        target: str | None = None,
        device_id: str | None = None,
        async_mode: bool = False,
        core_mask: int = 0,
    ) -> int:
        if self.rknn_data is None:
            _log.error("Model is not loaded yet, this interface should be called after load_rknn!")
            return -1
        if self.rknn_runtime is not None:
            self.rknn_runtime.release()
            self.rknn_runtime = None
        try:
            if target is not None:
                raise RuntimeError(f"no device of target {target} is connected by adb")
            self.rknn_runtime = type("RKNNRuntime", (_Runtime,), {"driver": self.driver})(
                self.root_dir, target, device_id
            )
            self.rknn_runtime.build_graph(self.rknn_data)
            self.rknn_runtime.set_core_mask(core_mask)
            self.rknn_runtime.check_dynamic_shape()
        except Exception:  # noqa: BLE001 - as the wheel does
            _log.error("Catch exception when init runtime!")
            _log.error(traceback.format_exc())
            return -1
        return 0

    def inference(self, inputs: list[np.ndarray], **ignored: Any) -> list[np.ndarray] | None:
        if self.rknn_runtime is None:
            _log.error("Runtime environment is not inited, please call init_runtime to init it first!")
            return None
        try:
            self.rknn_runtime.set_inputs(inputs)
        except Exception:  # noqa: BLE001 - as the wheel does
            _log.error("Catch exception when setting inputs.")
            _log.error(traceback.format_exc())
            return None
        self.rknn_runtime.run()
        try:
            return self.rknn_runtime.get_outputs()
        except Exception:  # noqa: BLE001 - as the wheel does
            _log.error("Catch exception when getting outputs.")
            _log.error(traceback.format_exc())
            return None

    def get_sdk_version(self) -> str | None:
        if self.rknn_runtime is None:
            return None
        return self.rknn_runtime.sdk_version()

    def release(self) -> None:
        if self.rknn_runtime is not None:
            self.rknn_runtime.release()
            self.rknn_runtime = None


class _Runtime:
    driver: Driver

    def __init__(
        self, root_dir: str, target: str | None, device_id: str | None, perf_debug: bool = False
    ) -> None:
        self._driver = self.lib = self.driver
        self._collects = perf_debug
        self._context = ctypes.c_ulong(0)
        self._dynamic = False

    @property
    def context(self) -> int:
        return self._context.value

    def build_graph(self, model: bytes) -> None:
        flags = COLLECT_PERFORMANCE if self._collects else 0
        code = self._driver.rknn_init(ctypes.addressof(self._context), model, len(model), flags, None)
        if code != 0:
            raise RuntimeError(f"RKNN init failed. error code: {code}")

    def set_core_mask(self, mask: int) -> None:
        code = self._driver.rknn_set_core_mask(self._context, mask)
        if code != 0:
            raise RuntimeError(f"RKNN set core mask failed. error code: {code}")

    def check_dynamic_shape(self) -> None:
        described = InputRange(index=0)
        self._dynamic = self._query(QUERY_INPUT_DYNAMIC_RANGE, described) == 0

    def sdk_version(self) -> str:
        version = SdkVersion()
        self._query(QUERY_SDK_VERSION, version)
        line = "=" * 46
        api, drv = version.api_version.decode(), version.drv_version.decode()
        return f"{line}\nRKNN VERSION:\n  API: {api}\n  DRV: {drv}\n{line}\n"

    def set_inputs(self, inputs: list[np.ndarray]) -> None:
        numbers = self._numbers()
        if len(inputs) != numbers.n_input:
            raise ValueError("the number of inputs is wrong")
        attributes = (TensorAttr * len(inputs))()
        given = (Input * len(inputs))()
        for index, array in enumerate(inputs):
            attributes[index].index = index
            self._query(QUERY_INPUT_ATTR, attributes[index])
            if attributes[index].n_dims != array.ndim:
                raise ValueError("the rank of an input is wrong")
            for place, length in enumerate(array.shape):
                attributes[index].dims[place] = length
            given[index] = Input(index, array.ctypes.data, array.nbytes, 0, NUMBERS[array.dtype.name], 3)
        if self._dynamic:
            code = self._driver.rknn_set_input_shapes(
                self._context, len(inputs), ctypes.addressof(attributes)
            )
            if code != 0:
                raise RuntimeError(f"Set input shape failed. error code: {code}")
        code = self._driver.rknn_inputs_set(self._context, len(inputs), ctypes.addressof(given))
        if code != 0:
            raise RuntimeError(f"Set inputs failed. error code: {code}")

    def run(self) -> None:
        self._driver.rknn_run(self._context, None)  # its code is not looked at

    def get_outputs(self) -> list[np.ndarray]:
        count = self._numbers().n_output
        wanted = (Output * count)()
        shapes = []
        for index in range(count):
            attribute = TensorAttr(index=index)
            self._query(QUERY_OUTPUT_ATTR, attribute)
            shapes.append(tuple(attribute.dims[: attribute.n_dims]))
            wanted[index].want_float, wanted[index].index = 1, index
        code = self._driver.rknn_outputs_get(self._context, count, ctypes.addressof(wanted), None)
        if code != 0:
            raise RuntimeError(f"E Get outputs failed, error code: {code}")
        values = []
        for output, shape in zip(wanted, shapes, strict=True):
            raw = ctypes.string_at(output.buf, min(output.size, 4 * int(np.prod(shape))))
            values.append(np.frombuffer(raw, np.float32).reshape(shape).copy())
        self._driver.rknn_outputs_release(self._context, count, ctypes.addressof(wanted))
        return values

    def get_run_perf(self) -> str:
        """Microseconds of the last run, in digits."""
        if self._collects:
            raise TypeError("decoding to str: need a bytes-like object, int found")  # as the wheel does
        run = PerfRun()
        code = self._query(QUERY_PERF_RUN, run)
        if code != 0:
            raise RuntimeError(f"Query run perf failed, error code: {code}")
        return str(run.run_duration)

    def release(self) -> None:
        self._driver.rknn_destroy(self._context)

    def _numbers(self) -> InOutNum:
        numbers = InOutNum()
        if self._query(QUERY_IN_OUT_NUM, numbers) != 0:
            raise RuntimeError("Get input output num failed!")
        return numbers

    def _query(self, command: int, structure: ctypes.Structure) -> int:
        return self._driver.rknn_query(
            self._context, command, ctypes.addressof(structure), ctypes.sizeof(structure)
        )
