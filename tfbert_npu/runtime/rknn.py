"""The `rknn` backend: rknn-toolkit-lite2 on the board, one context on one core.

What the vendor's runtime does not say in its documentation, and this module is written against: `load_rknn`
accepts any file; `init_runtime` returns -1 and leaves an object that looks usable; `inference` returns None
for every error; two threads in one context exchange each other's results; a context that is not released
stays in the driver. tests/runtime/double holds these as code, and is itself compared with the vendor's wheel.
"""

from __future__ import annotations

import importlib
import threading
from collections.abc import Sequence
from typing import Any

import numpy as np

from tfbert_npu.errors import ArtifactError
from tfbert_npu.platforms import Platform
from tfbert_npu.runtime import soc
from tfbert_npu.runtime.backend import Arrays, BackendName, named, ordered
from tfbert_npu.runtime.contexts import Contexts, shape_of
from tfbert_npu.runtime.errors import BackendError
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
        for file in files:
            check_platform(file, platform)
        vendor = vendor_class()
        try:
            for file in files:
                context = _open(vendor, file, core_mask(platform, core))
                self._contexts.add(file.model.shapes, context)
        except BaseException:
            self.close()
            raise

    def run(self, inputs: Arrays) -> dict[str, np.ndarray]:
        """Compute one batch of exactly one of the shapes; see `Backend.run`."""
        shape = shape_of(inputs)
        with self._lock:
            context = self._contexts.of(shape)
            values = context.inference(inputs=ordered(self.inputs, inputs, shape))
            if values is None:
                raise BackendError(f"the NPU failed at {shape[0]}x{shape[1]}{vendor_log().last()}")
        return named(self.outputs, values, shape, "the NPU")

    def close(self) -> None:
        """Release every context; `del` alone would leave them in the driver."""
        with self._lock:
            for context in self._contexts.take():
                context.release()


def vendor_class() -> Any:
    """The vendor's `RKNNLite`.

    Raises:
        BackendError: It is not installed, or cannot be imported here.
    """
    try:
        return importlib.import_module("rknnlite.api").RKNNLite
    except ImportError as error:
        raise BackendError(
            f"rknn-toolkit-lite2 cannot be used ({error}); on an aarch64 board install it with: "
            "pip install rknn-toolkit-lite2"
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
            f"{file.name} is for {target} and this board is {platform.name}; "
            f"export it with target_platform={platform.name!r}"
        )


def _open(vendor: Any, file: VerifiedFile, mask: int) -> Any:
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
                f"init_runtime returned {code} for {file.name} (compiled by toolkit {wanted}){log.last()}; "
                "`tfbert-npu doctor` looks at the driver and librknnrt"
            )
        _check_version(file, _api_version(context.get_sdk_version()))
        # The driver has its own copy by now; this one would be kept for each core.
        context.rknn_data = None
    except BaseException:
        context.release()
        raise
    return context


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
            f"{file.name} was compiled by toolkit {wanted} and this board's librknnrt is {runtime}; install "
            f"librknnrt.so {wanted} or newer in /usr/lib"
        )
