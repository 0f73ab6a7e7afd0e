"""An artefact directory as a function from numpy to numpy. No TensorFlow, no Keras.

Names load on first use.
"""

from __future__ import annotations

import importlib
from typing import Any

_HOME = {
    "Backend": "backend",
    "BackendError": "errors",
    "BackendTimeoutError": "errors",
    "NpuModel": "model",
    "Stats": "stats",
    "load_npu": "load",
}

__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOME])
