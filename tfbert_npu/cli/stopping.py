"""SIGTERM, which cleans up as Ctrl-C does, and the exit codes of both."""

from __future__ import annotations

import signal


class Terminated(KeyboardInterrupt):
    """SIGTERM has come."""


def clean_up_when_terminated() -> None:
    """Let SIGTERM end this process through its `finally` blocks, once."""
    signal.signal(signal.SIGTERM, _terminate)


def _terminate(number: int, frame: object) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise Terminated


def exit_code(error: BaseException) -> int:
    """143 for SIGTERM, 130 for Ctrl-C; click wraps either in an error of its own."""
    return 143 if isinstance(error, Terminated) or isinstance(error.__cause__, Terminated) else 130
