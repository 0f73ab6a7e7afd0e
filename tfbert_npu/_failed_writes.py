"""What it means that a file cannot be written, in one sentence, whatever library was writing."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tfbert_npu.errors import FailedWriteError

SCRATCH = "tfbert-npu"
"""In the names of directories for what is needed for a while."""

# What a person can do about an error of the system.
_CANNOT_WRITE = {
    errno.ENOSPC: "free some space or choose another place",
    errno.EDQUOT: "free some space or choose another place",
    errno.EFBIG: "raise the limit (ulimit -f) or choose another place",
    errno.EROFS: "choose another place",
    errno.EACCES: "choose another place, or change who may write there",
    errno.EPERM: "choose another place, or change who may write there",
    errno.EEXIST: "choose another name",
    errno.ENOTDIR: "choose another place",
    errno.ENAMETOOLONG: "choose a shorter name",
}
# These come from writing only.
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)


@contextmanager
def explaining_failed_write(target: str | os.PathLike[str]) -> Iterator[None]:
    """Let the error of a full or read-only disk say what was being written, and what to do.

    safetensors, TensorFlow and h5py have errors of their own for it, with the system's words in them.

    Raises:
        FailedWriteError: The disk is full, a limit is reached, or nobody may write there.
    """
    try:
        yield
    except FailedWriteError:
        raise  # says it already
    except Exception as error:
        found = _failed_write(error, os.fspath(target))
        if found is None:
            raise
        raise found from error


def _failed_write(error: Exception, target: str) -> FailedWriteError | None:
    """What an error means for who writes `target`; None if it comes from something else."""
    named = None
    if isinstance(error, OSError) and error.errno is not None:
        number, named = error.errno, error.filename
    else:
        number = next((number for number in _FULL if os.strerror(number) in str(error)), 0)
    if number not in _CANNOT_WRITE or (named is None and number not in _FULL):
        return None
    if named is not None and not _is_part(os.fsdecode(named), target):
        if number not in _FULL:
            return None  # a file that was read, perhaps
        target = os.fsdecode(named)
    remedy = _CANNOT_WRITE[number]
    if Path(target).name.startswith(f".{SCRATCH}.") or f"/.{SCRATCH}." in target:
        remedy = remedy.replace("choose another place", "set TMPDIR to another folder")
    cause = f"{target} could not be written ({os.strerror(number).lower()})"
    return FailedWriteError(cause, remedy, number)


def _is_part(named: str, target: str) -> bool:
    """Whether `named` is `target`, lies in it or above it, or is what will take its place."""
    path, whole = Path(os.path.realpath(named)), Path(os.path.realpath(target))
    if path.is_relative_to(whole) or whole.is_relative_to(path):
        return True
    beside = path.is_relative_to(whole.parent)
    return beside and path.relative_to(whole.parent).parts[0].startswith(f".{whole.name}.")


def make_directory(path: str | os.PathLike[str]) -> None:
    """Make a directory and those above it, unless they are there.

    Raises:
        FailedWriteError: That cannot be; the message says why and what to do.
    """
    with explaining_failed_write(path):
        Path(path).mkdir(parents=True, exist_ok=True)
