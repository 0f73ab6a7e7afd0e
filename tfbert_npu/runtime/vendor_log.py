"""What the vendor's Python runtime logs, kept so that an error can quote it."""

from __future__ import annotations

import collections
import logging
import threading

_LOGGER = "acuityLogger"
"""The name under which rknn-toolkit-lite2 logs."""
_KEPT = 50


class VendorLog(logging.Handler):
    """Keeps the last lines that the vendor logged, beside its own handler, which prints them."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._lines: collections.deque[tuple[int, str]] = collections.deque(maxlen=_KEPT)

    def emit(self, record: logging.LogRecord) -> None:
        """Keep a record."""
        text = record.getMessage().strip()
        self._lines.append((record.thread or 0, text.rpartition("\n")[2]))

    def forget(self) -> None:
        """Drop what this thread's earlier calls have left."""
        mine = threading.get_ident()
        for line in [line for line in self._lines if line[0] == mine]:
            self._lines.remove(line)

    def last(self) -> str:
        """The last thing that was logged in this thread, for the end of a message; empty if nothing was."""
        mine = threading.get_ident()
        for thread, text in reversed(self._lines):
            if thread == mine and text:
                return f": {text}"
        return ""


_log: VendorLog | None = None
_lock = threading.Lock()


def vendor_log() -> VendorLog:
    """The one log of this process, attached to the vendor's logger at the first call."""
    global _log
    with _lock:
        if _log is None:
            _log = VendorLog()
            logging.getLogger(_LOGGER).addHandler(_log)
        return _log
