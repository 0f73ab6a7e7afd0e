"""An artifact directory as a function from numpy to numpy. No TensorFlow, no Keras.

Names load on first use.
"""

from __future__ import annotations

from tfbert_npu._lazy import lazy_names

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
