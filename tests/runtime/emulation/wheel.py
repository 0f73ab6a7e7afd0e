"""The vendor's real wheel, with the double of librknnrt.so below it; for the emulated Python."""

from __future__ import annotations

import ctypes
import types
from typing import Any

from tests.runtime.double.driver import Driver


class _Libdl:
    """The wheel closes its library by hand; ours is none that could be closed."""

    class _Function:
        def __call__(self, *arguments: Any) -> int:
            return 0

    dlclose = _Function()


def install(driver: Driver) -> types.ModuleType:
    """`rknnlite.api` whose runtime loads the double instead of librknnrt.so."""
    import rknnlite.api
    import rknnlite.api.rknn_runtime as runtime

    driver._handle = 0  # type: ignore[attr-defined]

    def load(name: Any = None, *arguments: Any, **options: Any) -> Any:
        if "librknnrt" in str(name):
            return driver
        return _Libdl() if "libdl" in str(name) else ctypes.CDLL(name, *arguments, **options)

    runtime.CDLL = load
    return rknnlite.api
