"""Files that are there whole or not at all."""

from __future__ import annotations

import errno
import functools
import hashlib
import os
import platform
import re
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tfbert_npu.errors import FailedWriteError, GitLfsPointerError

# What a person can do something about, in the words of whatever library was writing.
_CANNOT_WRITE = {
    errno.ENOSPC: "free some space or choose another place",
    errno.EDQUOT: "free some space or choose another place",
    errno.EFBIG: "raise the limit (ulimit -f) or choose another place",
    errno.EROFS: "choose another place",
    errno.EACCES: "choose another place, or change who may write there",
    errno.EPERM: "choose another place, or change who may write there",
}
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)
_POINTER = b"version https://git-lfs"


def refuse_pointer(path: str | os.PathLike[str]) -> None:
    """Say so if a file that should hold a model, or a part of one, is git-lfs's pointer to it.

    Raises:
        GitLfsPointerError: It is one.
    """
    try:
        with open(path, "rb") as stream:
            begins = stream.read(len(_POINTER))
    except OSError:
        return  # whoever reads it says why that fails
    if begins == _POINTER:
        raise GitLfsPointerError(
            f"{os.fspath(path)} is a git-lfs pointer, not the file itself; run git lfs pull in its directory"
        )


@contextmanager
def explaining_failed_write(target: str | os.PathLike[str]) -> Iterator[None]:
    """Let the error of a full or read-only disk say what was being written, and what to do.

    safetensors, TensorFlow and h5py have errors of their own for it, with the system's words in them.

    Raises:
        FailedWriteError: The disk is full, a limit is reached, or nobody may write there.
    """
    try:
        yield
    except Exception as error:
        number = _number_of(error, Path(target).parent)
        if number is None:
            raise
        reason = os.strerror(number).lower()
        raise FailedWriteError(
            number, f"{os.fspath(target)} could not be written ({reason}); {_CANNOT_WRITE[number]}"
        ) from error


def _number_of(error: Exception, folder: Path) -> int | None:
    """The system's number of an error that comes from writing into `folder`."""
    if isinstance(error, FailedWriteError):
        return None  # says it already
    if not isinstance(error, OSError) or error.errno is None:
        text = str(error)
        return next((number for number in _FULL if os.strerror(number) in text), None)
    if error.errno not in _CANNOT_WRITE:
        return None
    if error.filename is None:  # a call that had an open file
        return error.errno if error.errno in _FULL else None
    there = Path(os.path.realpath(os.fsdecode(error.filename)))
    return error.errno if there.is_relative_to(os.path.realpath(folder)) else None


@contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A temporary file beside `path` that takes its place when the block ends without an error.

    Whoever reads `path` sees the old content or the new one, also if this process is killed half way; what a
    killed process of the same owner left is cleared away. The new file has the old one's permissions and,
    where that is allowed, its owner. A symbolic link stays one: the file that it names is replaced. What is
    no regular file, such as /dev/null or a pipe, is written into.

    Raises:
        FailedWriteError: It cannot be written; the message says why and what to do.
        IsADirectoryError: A directory is there.
    """
    target = Path(os.path.realpath(path))
    with explaining_failed_write(path):
        before = target.stat() if target.exists() else None
        if before is not None and stat.S_ISDIR(before.st_mode):
            raise IsADirectoryError(errno.EISDIR, "a directory is there", os.fspath(path))
        if before is not None and not stat.S_ISREG(before.st_mode):
            with tempfile.TemporaryDirectory(prefix="tfbert-npu-") as scratch:
                yield (temporary := Path(scratch, target.name))
                with temporary.open("rb") as content, target.open("wb") as device:
                    shutil.copyfileobj(content, device)
            return
        clear_leftovers(target.parent, target.name)
        handle, name = tempfile.mkstemp(dir=target.parent, prefix=temporary_prefix(target))
        os.close(handle)
        temporary = Path(name)
        try:
            yield temporary
            # mkstemp's file is for its owner alone.
            temporary.chmod(0o666 & ~umask() if before is None else stat.S_IMODE(before.st_mode))
            if before is not None and (before.st_uid, before.st_gid) != (os.geteuid(), os.getegid()):
                with suppress(PermissionError):
                    os.chown(temporary, before.st_uid, before.st_gid)
            os.replace(temporary, target)
        finally:
            with suppress(FileNotFoundError):
                temporary.unlink()


def umask() -> int:
    """The permissions that new files of this process do not get."""
    value = os.umask(0)
    os.umask(value)
    return value


def temporary_prefix(target: Path) -> str:
    """How the name of something temporary beside `target` begins: whose it is, and of which process."""
    return f".{target.name}.{_owner()}.{os.getpid()}-"


@functools.cache
def _owner() -> str:
    """Who may clear a leftover away: this user on this machine, in this container.

    In a folder that several share, a process number of somebody else's says nothing about whether he works.
    """
    namespace = Path("/proc/self/ns/pid")
    container = os.readlink(namespace) if namespace.exists() else ""
    return hashlib.sha256(f"{platform.node()} {container} {os.getuid()}".encode()).hexdigest()[:8]


def clear_leftovers(folder: Path, name: str | None = None) -> None:
    """Remove what killed processes of the same owner left in a folder, half written.

    Args:
        folder: Where; it need not exist.
        name: Of the file or directory that was being written; by default any.
    """
    wanted = r"(.+)" if name is None else f"({re.escape(name)})"
    pattern = re.compile(rf"\.{wanted}\.{_owner()}\.(\d+)-\w+")
    for path in folder.iterdir() if folder.is_dir() else ():
        match = pattern.fullmatch(path.name)
        if match is None or os.path.exists(f"/proc/{match.group(2)}"):
            continue
        target = folder / match.group(1)
        if (path / "old").is_dir() and not target.exists():
            os.rename(path / "old", target)  # killed between the two renames: the old one is still good
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
