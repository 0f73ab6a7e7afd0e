"""An artifact directory as a function from numpy to numpy. No TensorFlow, no Keras.

Names load on first use.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tfbert_npu._lazy import lazy_names

if TYPE_CHECKING:  # the face of the names below, for type checkers and editors
    from tfbert_npu.runtime.backend import Backend as Backend
    from tfbert_npu.runtime.errors import BackendError as BackendError
    from tfbert_npu.runtime.errors import BackendTimeoutError as BackendTimeoutError
    from tfbert_npu.runtime.load import load_npu as load_npu
    from tfbert_npu.runtime.model import NpuModel as NpuModel
    from tfbert_npu.runtime.stats import Stats as Stats

_HOME = {
    "Backend": ".backend",
    "BackendError": ".errors",
    "BackendTimeoutError": ".errors",
    "NpuModel": ".model",
    "Stats": ".stats",
    "load_npu": ".load",
}

__all__ = sorted(_HOME)

__getattr__, __dir__ = lazy_names(__name__, _HOME)
