"""What goes wrong while a model runs, as against an artifact or an input that is wrong."""

from __future__ import annotations

from tfbert_npu.errors import TfbertNpuError


class BackendError(TfbertNpuError, RuntimeError):
    """A backend is missing, could not be started, or failed to compute; `on_error` applies to it."""


class FailedCallError(BackendError):
    """The NPU did not compute a call; another context may."""


class BackendTimeoutError(BackendError, TimeoutError):
    """A call took longer than its limit, or found no free context within it."""
