"""One call of a pool from its submission to its answer, and what is counted for one place of the pool."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

import numpy as np

from tfbert_npu.runtime.backend import Arrays

if TYPE_CHECKING:
    from tfbert_npu.runtime.pool import _Worker


class Call:
    """One call of a backend, from its submission to its answer."""

    __slots__ = (
        "_done",
        "attempts",
        "cancelled",
        "error",
        "inputs",
        "outputs",
        "queued",
        "started",
        "worker",
    )

    def __init__(self, inputs: Arrays) -> None:
        self.inputs = inputs
        self.outputs: dict[str, np.ndarray] | None = None
        self.error: BaseException | None = None
        self.attempts = 0
        self.cancelled = False
        self.queued = time.monotonic()
        self.started: float | None = None
        self.worker: _Worker | None = None
        self._done = threading.Lock()  # a lock is the lightest thing in Python that one can wait on
        self._done.acquire()

    def finish(self, outputs: dict[str, np.ndarray] | None, error: BaseException | None) -> None:
        """Answer the call."""
        self.outputs, self.error = outputs, error
        self._done.release()

    @property
    def answered(self) -> bool:
        """Whether the answer is there."""
        return not self._done.locked()

    def wait(self, seconds: float) -> bool:
        """Whether the answer came within that time."""
        if self._done.acquire(timeout=max(seconds, 0)):
            self._done.release()
            return True
        return False


class Slot:
    """What is counted for one place of the pool, whichever contexts have held it."""

    def __init__(self) -> None:
        self.calls = self.errors = self.computed_tokens = self.replaced = 0
        self.failed_in_a_row = 0
        self.run_seconds = self.wait_seconds = 0.0
