"""When to try what has failed again, and saying once that it has."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

logger = logging.getLogger("tfbert_npu")


class Failover:
    """The state of a backend that something else stands in for while it fails.

    Args:
        what: The backend's name.
        instead: The name of what stands in.
        retry_after: Seconds until it is tried again.
        clock: For tests.
    """

    def __init__(
        self, what: str, instead: str, retry_after: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._what = what
        self._instead = instead
        self._retry_after = retry_after
        self._clock = clock
        self._lock = threading.Lock()
        self._retry_at: float | None = None
        self._reason = ""

    def should_try(self) -> bool:
        """Whether to use the backend: it works, or the pause after its last failure has passed.

        Of several threads that ask after a pause, one is told to try; the others would wait with it.
        """
        if self._retry_at is None:
            return True
        with self._lock:
            if self._retry_at is None:
                return True
            now = self._clock()
            if now < self._retry_at:
                return False
            self._retry_at = now + self._retry_after
            return True

    def failed(self, error: Exception) -> None:
        """Note a failure; the first of a row is logged."""
        with self._lock:
            first = self._retry_at is None
            self._retry_at = self._clock() + self._retry_after
            self._reason = str(error)
        if first:
            logger.warning(
                "%s failed and %s stands in for it, as on_error says; it is tried again every %g s: %s",
                self._what,
                self._instead,
                self._retry_after,
                error,
            )

    def succeeded(self) -> None:
        """Note that the backend works."""
        if self._retry_at is None:
            return
        with self._lock:
            before, self._retry_at = self._retry_at, None
        if before is not None:
            logger.warning("%s works again", self._what)

    @property
    def runs_on(self) -> str:
        """What computes now."""
        if self._retry_at is None:
            return self._what
        return f"{self._instead} ({self._what} failed: {self._reason})"
