"""The directory that a training writes: one training at a time, and no finished one overwritten."""

from __future__ import annotations

import fcntl
import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tfbert_npu._failed_writes import make_directory
from tfbert_npu._files import clear_leftovers_in
from tfbert_npu.errors import TfbertNpuError
from tfbert_npu.train.curves import LOSSES, PICTURE
from tfbert_npu.train.state import FILE

LOCK = "training.lock"
SPLIT = "split.json"


class OutDirectoryError(TfbertNpuError, ValueError):
    """The directory of the result is in use, or holds something that is not to be overwritten."""


def check_out(out: Path, overwrite: bool) -> None:
    """Refuse to write over what is in `out`, unless it is a training to go on with.

    Args:
        out: The directory of the result; it need not exist.
        overwrite: Begin again: what a training left there is removed, and its result will be replaced.

    Raises:
        OutDirectoryError: There is something else, and `overwrite` is false; or `out` is no directory.
    """
    if not out.exists():
        return
    if not out.is_dir():
        raise OutDirectoryError(f"{out} is no directory", "give another name")
    if overwrite:
        for name in (FILE, SPLIT, LOSSES, PICTURE, "history.json", "results.json"):
            (out / name).unlink(missing_ok=True)
        return
    clear_leftovers_in(out)
    if (out / FILE).is_file():
        return
    found = sorted(path.name for path in out.iterdir() if path.name not in (LOCK, SPLIT))
    if found:
        raise OutDirectoryError(
            f"{out} holds {', '.join(found[:3])}{', ...' if len(found) > 3 else ''} already",
            "give another directory, or --overwrite to replace it",
        )


@contextmanager
def locked(out: Path) -> Iterator[None]:
    """Hold `out` for this training; the lock is released by the end of the process, however it ends.

    Raises:
        OutDirectoryError: Another training holds it, or one of another machine or container may.
    """
    created = not out.exists()
    make_directory(out)
    path = out / LOCK
    handle = _open_locked(path)
    try:
        host = socket.gethostname()
        text = os.pread(handle, 1000, 0).decode("utf-8", "replace")
        other = host
        with suppress(ValueError, AttributeError):
            other = json.loads(text).get("host", host)
        if other != host:
            raise OutDirectoryError(
                f"{path} says that a training on {other} writes to {out}", "if it has ended, remove that file"
            )
        os.ftruncate(handle, 0)
        os.pwrite(handle, json.dumps({"host": host, "pid": os.getpid()}).encode(), 0)
        try:
            yield
        finally:
            path.unlink(missing_ok=True)
            if created:  # nothing was written: leave nothing behind
                with suppress(OSError):
                    out.rmdir()
    finally:
        os.close(handle)


def _open_locked(path: Path) -> int:
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder = os.pread(handle, 1000, 0).decode("utf-8", "replace")
            os.close(handle)
            raise OutDirectoryError(
                f"another training writes to {path.parent} ({holder or 'it has just begun'})",
                "wait for its end, or give another directory",
            ) from error
        # The holder before us may have removed the file between our opening and our locking it.
        with suppress(FileNotFoundError):
            if os.fstat(handle).st_ino == path.stat().st_ino:
                return handle
        os.close(handle)
