"""A directory that is there whole or not at all."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from tfbert_npu._failed_writes import explaining_failed_write
from tfbert_npu._files import clear_leftovers, keep_owner_and_mode, temporary_prefix


@contextlib.contextmanager
def staged(target: Path, *, overwrite: bool) -> Iterator[Path]:
    """A temporary directory beside `target` that becomes it when the block ends without an error.

    What earlier processes of the same owner that were killed have left is cleared away. A symbolic link is
    followed on purpose: the directory that it names is replaced, and the link stays. What replaces
    a directory has its permissions and, where that is allowed, its owner.

    Args:
        target: The directory to make.
        overwrite: Whether to replace one that is there and not empty; it stays untouched until the new one
            is complete.

    Raises:
        FileExistsError: `target` is there and not empty, or is a file.
        FailedWriteError: It cannot be written; the message says why and what to do.
    """
    check_target(target, overwrite=overwrite)
    with explaining_failed_write(target):
        target = Path(os.path.realpath(target))
        target.parent.mkdir(parents=True, exist_ok=True)
        clear_leftovers(target)
        staging = _temporary(target)
        try:
            yield staging
            # mkdtemp's directory is for its owner alone
            keep_owner_and_mode(staging, target.stat() if target.exists() else None, 0o777)
            with _alone_in(target.parent):
                _swap(staging, target, overwrite)
        finally:
            shutil.rmtree(staging, ignore_errors=True)


def check_target(target: Path, *, overwrite: bool) -> None:
    """Refuse a target that holds something, before any work is done."""
    if target.is_dir():
        if any(target.iterdir()) and not overwrite:
            raise FileExistsError(f"{target} is not empty; choose another directory or pass --overwrite")
    elif target.exists() or target.is_symlink():
        raise FileExistsError(f"{target} is not a directory; choose another path")
    parent = target.parent
    while not parent.exists():
        parent = parent.parent
    if not os.access(parent, os.W_OK | os.X_OK):
        raise PermissionError(f"{parent} cannot be written; choose another directory")


@contextlib.contextmanager
def _alone_in(folder: Path) -> Iterator[None]:
    """Let processes that write to one target swap one after the other."""
    handle = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        with contextlib.suppress(OSError):  # file systems that lock no directories
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _swap(staging: Path, target: Path, overwrite: bool) -> None:
    if not target.exists():
        os.rename(staging, target)
        return
    check_target(target, overwrite=overwrite)  # it may have come to be since
    old = _temporary(target)
    os.rename(target, old / "old")
    try:
        os.rename(staging, target)
    except BaseException:
        os.rename(old / "old", target)
        raise
    finally:
        shutil.rmtree(old, ignore_errors=True)


def _temporary(target: Path) -> Path:
    return Path(tempfile.mkdtemp(prefix=temporary_prefix(target), dir=target.parent))
