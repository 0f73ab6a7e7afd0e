"""Files that are there whole or not at all."""

from __future__ import annotations

import errno
import functools
import hashlib
import os
import platform
import re
import shutil
import socket
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from tfbert_npu._failed_writes import SCRATCH, explaining_failed_write
from tfbert_npu.errors import FailedWriteError, GitLfsPointerError

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
            f"{os.fspath(path)} is a git-lfs pointer, not the file itself",
            "run git lfs pull in its directory",
        )


@contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A temporary file beside `path` that takes its place when the block ends without an error.

    Whoever reads `path` sees the old content or the new one, also if this process is killed half way; what a
    killed process of the same owner left is cleared away. The new file has the old one's permissions and,
    where that is allowed, its owner. A symbolic link is followed on purpose: the file that it names is
    replaced, and the link stays. What is no regular file, such as /dev/null, a pipe, a socket or this
    process's own /dev/stdout, is written into.

    Raises:
        FailedWriteError: It cannot be written; the message says why and what to do.
        FileNotFoundError: The directory that it should lie in is not there.
        NotADirectoryError: What it should lie in is no directory.
        IsADirectoryError: A directory is there.
    """
    with explaining_failed_write(path):
        descriptor = _descriptor_of(path)
        # Not of what realpath gives: that names no pipe that a descriptor leads to.
        before = os.stat(path if descriptor is None else descriptor) if os.path.exists(path) else None
        if before is not None and stat.S_ISDIR(before.st_mode):
            raise IsADirectoryError(errno.EISDIR, "a directory is there", os.fspath(path))
        if before is not None and (descriptor is not None or not stat.S_ISREG(before.st_mode)):
            with scratch_directory() as scratch:
                yield (temporary := Path(scratch, Path(path).name))
                _write_through(temporary, path, descriptor, stat.S_ISSOCK(before.st_mode))
            return
        target = Path(os.path.realpath(path))
        if not target.parent.is_dir():
            if target.parent.exists():
                raise NotADirectoryError(f"{target.parent} is no directory; choose another place for {path}")
            raise FileNotFoundError(f"the directory {target.parent} does not exist; make it first")
        clear_leftovers(target)
        handle, name = tempfile.mkstemp(dir=target.parent, prefix=temporary_prefix(target))
        os.close(handle)
        temporary = Path(name)
        try:
            yield temporary
            keep_owner_and_mode(temporary, before, 0o666)  # mkstemp's file is for its owner alone
            os.replace(temporary, target)
        finally:
            with suppress(FileNotFoundError):
                temporary.unlink()


def _descriptor_of(path: str | os.PathLike[str]) -> int | None:
    """The descriptor of this process that a path such as /dev/stdout or /dev/fd/63 leads to."""
    here = os.path.abspath(path)
    for _ in range(40):  # as many links as the system follows
        folder, name = os.path.realpath(os.path.dirname(here)), os.path.basename(here)
        if folder == f"/proc/{os.getpid()}/fd" and name.isdecimal():
            return int(name)
        if not os.path.islink(os.path.join(folder, name)):
            return None
        here = os.path.join(folder, os.readlink(os.path.join(folder, name)))
    return None


def _write_through(
    content: Path, path: str | os.PathLike[str], descriptor: int | None, is_socket: bool
) -> None:
    stream: IO[bytes]
    if descriptor is not None:
        stream = os.fdopen(os.dup(descriptor), "wb")
    elif is_socket:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(os.fspath(path))
            stream = connection.makefile("wb")
    else:
        stream = open(path, "wb")  # noqa: SIM115 - closed below
    try:
        with content.open("rb") as source, stream:
            shutil.copyfileobj(source, stream)
    except BrokenPipeError as error:
        raise FailedWriteError(
            f"{path} could not be written (its reader has gone)", "keep the reader running", errno.EPIPE
        ) from error


def keep_owner_and_mode(new: Path, before: os.stat_result | None, mode: int) -> None:
    """Give what will replace something its permissions and, where that is allowed, its owner.

    Args:
        new: A file or directory of this process.
        before: What it replaces; None for nothing.
        mode: The permissions of something that replaces nothing, before the umask.
    """
    if before is not None and (before.st_uid, before.st_gid) != (os.geteuid(), os.getegid()):
        with suppress(PermissionError):
            os.chown(new, before.st_uid, before.st_gid)
    # After chown, which takes set-user-id bits away.
    new.chmod(mode & ~umask() if before is None else stat.S_IMODE(before.st_mode))


def scratch_directory(folder: str | os.PathLike[str] | None = None) -> tempfile.TemporaryDirectory[str]:
    """A directory for what is needed for a while; what killed processes of the same owner left is removed.

    Args:
        folder: Where to make it; by default the system's folder for such things.
    """
    base = Path(folder or tempfile.gettempdir(), SCRATCH)
    clear_leftovers(base)
    return tempfile.TemporaryDirectory(prefix=temporary_prefix(base), dir=base.parent)


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


def clear_leftovers(target: Path) -> None:
    """Remove what killed processes of the same owner left beside `target`, half written."""
    _clear_all(target.parent, re.escape(target.name))


def clear_leftovers_in(folder: Path) -> None:
    """Remove all that killed processes of the same owner left in a folder, half written."""
    _clear_all(folder, ".+")


def _clear_all(folder: Path, names: str) -> None:
    pattern = re.compile(rf"\.({names})\.{_owner()}\.(\d+)-\w+")
    with suppress(OSError):  # a folder that cannot be listed: nothing is cleared
        for name in os.listdir(folder):
            match = pattern.fullmatch(name)
            if match is not None and not _is_running(int(match.group(2))):
                _clear(folder / name, folder / match.group(1))


def _is_running(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        pass
    return True


def _clear(path: Path, target: Path) -> None:
    # In a shared folder anybody may make something of this name.
    if path.lstat().st_uid != os.geteuid() or path.is_symlink():
        return
    if not path.is_dir():
        path.unlink(missing_ok=True)
        return
    if (path / "old").is_dir() and not target.exists():
        os.rename(path / "old", target)  # killed between the two renames: the old one is still good
    shutil.rmtree(path, ignore_errors=True)
