"""A directory that is there whole or not at all."""

from __future__ import annotations

import contextlib
import errno
import functools
import hashlib
import os
import platform
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def explaining_full_disk(target: Path) -> Iterator[None]:
    """Let the error of a full disk say what was being written, and what to do.

    Raises:
        OSError: With the same number, where there is no space or a quota or size limit is reached.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise
        reason = os.strerror(error.errno).lower()
        raise OSError(
            error.errno, f"{target} could not be written ({reason}); free some space or choose another place"
        ) from error


@contextlib.contextmanager
def staged(target: Path, *, overwrite: bool) -> Iterator[Path]:
    """A temporary directory beside `target` that becomes it when the block ends without an error.

    What earlier processes of the same owner that were killed have left is cleared away.

    Args:
        target: The directory to make.
        overwrite: Whether to replace one that is there and not empty; it stays untouched until the new one
            is complete.

    Raises:
        FileExistsError: `target` is there and not empty, or is a file.
        OSError: The parent cannot be written.
    """
    check_target(target, overwrite=overwrite)
    target.parent.mkdir(parents=True, exist_ok=True)
    _clear_leftovers(target)
    staging = _temporary(target)
    try:
        with explaining_full_disk(target):
            yield staging
        umask = os.umask(0)
        os.umask(umask)
        staging.chmod(0o777 & ~umask)  # mkdtemp's directory is for its owner alone
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
    prefix = f".{target.name}.{_owner()}.{os.getpid()}-"
    return Path(tempfile.mkdtemp(prefix=prefix, dir=target.parent))


@functools.cache
def _owner() -> str:
    """Who may clear a leftover away: this user on this machine, in this container.

    In a folder that several share, a process number of somebody else's says nothing about whether he works.
    """
    namespace = Path("/proc/self/ns/pid")
    container = os.readlink(namespace) if namespace.exists() else ""
    return hashlib.sha256(f"{platform.node()} {container} {os.getuid()}".encode()).hexdigest()[:8]


def _clear_leftovers(target: Path) -> None:
    pattern = re.compile(re.escape(f".{target.name}.{_owner()}.") + r"(\d+)-\w+")
    for path in target.parent.iterdir():
        match = pattern.fullmatch(path.name)
        if match is None or not path.is_dir() or os.path.exists(f"/proc/{match.group(1)}"):
            continue
        if (path / "old").is_dir() and not target.exists():
            os.rename(path / "old", target)  # killed between the two renames: the old one is still good
        shutil.rmtree(path, ignore_errors=True)
