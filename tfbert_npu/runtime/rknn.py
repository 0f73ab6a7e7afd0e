"""The `rknn` backend: rknn-toolkit-lite2 on the board, one context on one core.

What the vendor's runtime does not say in its documentation, and this module is written against: `load_rknn`
accepts any file; `init_runtime` returns -1 and leaves an object that looks usable; `inference` returns None
for every error that it sees, but it ignores the code of `rknn_run`, so that a call that failed gives the
outputs of the context's last call; two threads in one context exchange each other's results; a context that
is not released stays in the driver. tests/runtime/double holds these as code, and is itself compared with the
vendor's wheel.
"""

from __future__ import annotations

import importlib
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tfbert_npu.errors import ArtifactError
from tfbert_npu.inputs import MASK
from tfbert_npu.platforms import Platform
from tfbert_npu.runtime import soc
from tfbert_npu.runtime.backend import Arrays, BackendName, Shape, named, ordered
from tfbert_npu.runtime.contexts import Contexts, shape_of
from tfbert_npu.runtime.errors import BackendError, FailedCallError
from tfbert_npu.runtime.files import VerifiedFile, runs_on
from tfbert_npu.runtime.vendor_log import vendor_log


class RknnBackend:
    """A model on one core of the board's NPU.

    Args:
        files: The artifact's .rknn files, checked.
        platform: This board's SoC.
        core: Number of the core, from 0; None leaves the choice to the driver, the only one on an SoC with a
            single core.

    Raises:
        BackendError: The vendor's runtime is missing, too old, or refuses the model.
        ArtifactError: The files are for another SoC.
    """

    name: BackendName = "rknn"

    def __init__(self, files: Sequence[VerifiedFile], platform: Platform, core: int | None) -> None:
        self.inputs = files[0].model.inputs
        self.outputs = files[0].model.outputs
        self.shapes = tuple(shape for file in files for shape in file.model.shapes)
        self._lock = threading.Lock()
        self._contexts: Contexts[Any] = Contexts("NPU context")
        self._last: dict[int, _Seen] = {}
        self._core = core
        for file in files:
            check_platform(file, platform)
        vendor = vendor_class()
        try:
            for file in files:
                context = open_context(vendor, file, core_mask(platform, core))
                self._contexts.add(file.model.shapes, context)
        except BaseException:
            self.close()
            raise

    def run(self, inputs: Arrays) -> dict[str, np.ndarray]:
        """Compute one batch of exactly one of the shapes; see `Backend.run`."""
        shape = shape_of(inputs)
        with self._lock:
            context = self._contexts.of(shape)
            arrays = ordered(self.inputs, inputs, shape)
            values = self._infer(context, arrays, shape)
            if self._is_doubtful(context, arrays, values):
                self._keep(context, arrays, values)
                self._probe(context, arrays, shape)
                # It computes; so these outputs are right if they come again.
                if not equal(values, self._infer(context, arrays, shape)):
                    raise self._failed(shape)
            self._keep(context, arrays, values)
        return named(self.outputs, values, shape, "the NPU")

    def check(self, shape: Shape) -> None:
        """Compute two different inputs of a shape; they warm the context up and show that it computes.

        Raises:
            FailedCallError: It gives the same outputs for both.
        """
        zeros = {spec.name: np.zeros(spec.at(shape), spec.dtype) for spec in self.inputs}
        if MASK in zeros:
            zeros[MASK] = np.ones_like(zeros[MASK])
        with self._lock:
            context = self._contexts.of(shape)
            arrays = ordered(self.inputs, zeros, shape)
            values = self._infer(context, arrays, shape)
            named(self.outputs, values, shape, "the NPU")
            self._keep(context, arrays, values)
            self._probe(context, arrays, shape)

    def _infer(self, context: Any, arrays: Sequence[np.ndarray], shape: Shape) -> list[np.ndarray]:
        values = context.inference(inputs=list(arrays))
        if values is None:
            raise FailedCallError(f"the NPU failed at {shape[0]}x{shape[1]}{vendor_log().last()}")
        return list(values)

    def _keep(self, context: Any, arrays: Sequence[np.ndarray], values: Sequence[np.ndarray]) -> None:
        """Remember a context's last call, to know its outputs if they come again."""
        self._last[id(context)] = _Seen([a.copy() for a in arrays], [v.copy() for v in values])

    def _is_doubtful(self, context: Any, arrays: Sequence[np.ndarray], values: Sequence[np.ndarray]) -> bool:
        """Whether these outputs may be no answer to these inputs: the last call's once more, or all zero."""
        last = self._last.get(id(context))
        if last is not None and equal(last.outputs, values):
            return not equal(last.inputs, arrays)
        return not any(value.any() for value in values)

    def _probe(self, context: Any, arrays: Sequence[np.ndarray], shape: Shape) -> None:
        """Make the context compute something else, to see whether it computes at all."""
        other = [changed(arrays[0]), *arrays[1:]]
        values = self._infer(context, other, shape)
        if equal(self._last[id(context)].outputs, values):
            raise self._failed(shape)
        self._keep(context, other, values)

    def _failed(self, shape: Shape) -> FailedCallError:
        core = "the NPU" if self._core is None else f"core {self._core} of the NPU"
        return FailedCallError(
            f"{core} did not compute {shape[0]}x{shape[1]} and left the last call's outputs"
            f"{vendor_log().last()}",
            "`tfbert-npu doctor` looks at the driver",
        )

    def close(self) -> None:
        """Release every context; `del` alone would leave them in the driver."""
        with self._lock:
            for context in self._contexts.take():
                context.release()


@dataclass
class _Seen:
    """The last call of a context."""

    inputs: list[np.ndarray]
    outputs: list[np.ndarray]


def equal(some: Sequence[np.ndarray], others: Sequence[np.ndarray]) -> bool:
    """Whether two lists of arrays are the same to the bit."""
    return len(some) == len(others) and all(
        a.shape == b.shape and bool(np.array_equal(a, b)) for a, b in zip(some, others, strict=True)
    )


def changed(first: np.ndarray) -> np.ndarray:
    """Other word ids, or other embeddings; both stay in their range."""
    if np.issubdtype(first.dtype, np.integer):
        return np.where(first > 1, first - 1, first + 1).astype(first.dtype)
    # A ramp, since the first LayerNorm makes all constants alike.
    return (np.linspace(1, 2, first.size).reshape(first.shape) - first).astype(first.dtype)


def vendor_class() -> Any:
    """The vendor's `RKNNLite`.

    Raises:
        BackendError: It is not installed, or cannot be imported here.
    """
    try:
        return importlib.import_module("rknnlite.api").RKNNLite
    except ImportError as error:
        raise BackendError(
            f"rknn-toolkit-lite2 cannot be used ({error})",
            "on an aarch64 board install it with: pip install rknn-toolkit-lite2",
        ) from error


def core_mask(platform: Platform, core: int | None) -> int:
    """The vendor's mask for one core; SoCs with a single core take 0, "auto", only.

    Raises:
        ValueError: The SoC has no such core.
    """
    if core is None or (platform.cores == 1 and core == 0):
        return 0
    if not 0 <= core < platform.cores:
        raise ValueError(f"{platform.name} has cores 0 to {platform.cores - 1}, got {core}")
    return 1 << core


def check_platform(file: VerifiedFile, platform: Platform) -> None:
    """Make sure that a file is for this SoC.

    Raises:
        ArtifactError: It is for another one; the driver may crash on it.
    """
    target = file.model.platform
    if target is not None and not runs_on(platform.target, (target,)):
        raise ArtifactError(
            f"{file.name} is for {target} and this board is {platform.name}",
            f"export it with target_platform={platform.name!r}",
        )


def open_context(vendor: Any, file: VerifiedFile, mask: int, *, collects: bool = False) -> Any:
    """An `RKNNLite` that is ready to compute.

    Args:
        vendor: `vendor_class()`.
        file: The model.
        mask: Which cores; see `core_mask`.
        collects: Keep a table of the operators' times, which makes calls slower.

    Raises:
        BackendError: The runtime refuses the model, or is older than it.
    """
    wanted = file.model.toolkit_version
    installed = soc.library()
    _check_version(file, soc.library_version(installed) if installed else None)
    context = vendor(verbose=False)
    log = vendor_log()
    log.forget()
    try:
        code = context.load_rknn(file.path())
        if code != 0:
            raise BackendError(f"load_rknn returned {code} for {file.name}{log.last()}")
        # On the board the target must be left out: with one, the vendor looks for a board behind adb.
        code = context.init_runtime(core_mask=mask)
        if code != 0:
            raise BackendError(
                f"init_runtime returned {code} for {file.name} (compiled by toolkit {wanted}){log.last()}",
                "`tfbert-npu doctor` looks at the driver and librknnrt",
            )
        _check_version(file, _api_version(context.get_sdk_version()))
        if collects:
            _collect(context, mask)
        # The driver has its own copy by now; this one would be kept for each core.
        context.rknn_data = None
    except BaseException:
        context.release()
        raise
    return context


def _collect(context: Any, mask: int) -> None:
    """Replace a context's runtime by one that keeps a table of its operators; RKNNLite has no option."""
    kind = type(context.rknn_runtime)
    context.rknn_runtime.release()
    context.rknn_runtime = kind(context.root_dir, None, None, perf_debug=True)
    context.rknn_runtime.build_graph(context.rknn_data)
    context.rknn_runtime.set_core_mask(mask)
    context.rknn_runtime.check_dynamic_shape()


def _api_version(sdk: str | None) -> str | None:
    """The version of librknnrt in what `get_sdk_version` says, such as `API: 2.3.2 (429f97ae6b@...)`."""
    for line in (sdk or "").splitlines():
        name, _, rest = line.strip().partition(":")
        if name.strip().upper().startswith("API") and rest.strip()[:1].isdigit():
            return rest.split()[0]
    return None


def _check_version(file: VerifiedFile, runtime: str | None) -> None:
    wanted = file.model.toolkit_version
    if runtime is None or wanted is None:
        return
    # The vendor promises that a runtime reads what an older toolkit of the same major version wrote.
    if soc.version_tuple(runtime) < soc.version_tuple(wanted):
        raise BackendError(
            f"{file.name} was compiled by toolkit {wanted} and this board's librknnrt is {runtime}",
            f"install librknnrt.so {wanted} or newer in /usr/lib",
        )
