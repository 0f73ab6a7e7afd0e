"""What a vendor process may use, how it is told that it used more, and what its log says last."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from tfbert_npu.rknn.toolchain.environment import ToolchainError

_LAST_LINES = 40
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
# The first comes once for every Gather on the CPU; the others frame an exception, which is reported itself.
_HARMLESS = ("Unkown op target", "Traceback", "rknn-toolkit2 version")


class WorkerError(ToolchainError):
    """A conversion failed; `log` is the vendor's log of it."""

    def __init__(self, message: str, log: Path, kind: str) -> None:
        super().__init__(message)
        self.log = log
        self.kind = kind


@dataclass(frozen=True)
class Limits:
    """What one vendor process may use."""

    seconds: float = 1800.0
    """Wall-clock time for one request."""
    memory: int = 16 * 2**30
    """Resident memory in bytes."""


def last_error(log: Path) -> str:
    """The last line of the log in which the vendor speaks of an error, after a colon; or nothing."""
    try:
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines()[-_LAST_LINES:]
    except OSError:
        return ""
    for line in reversed(lines):
        text = _COLOUR.sub("", line.rpartition("\r")[2]).strip()
        if text.startswith("E ") and not any(harmless in text for harmless in _HARMLESS):
            return f": {text[2:].strip()[:300]}"
    return ""


def resident_memory(pid: int) -> int:
    """Bytes of memory that a process holds; 0 if there is no such process."""
    try:
        with open(f"/proc/{pid}/statm", encoding="ascii") as stream:
            return int(stream.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, IndexError, ValueError):
        return 0
