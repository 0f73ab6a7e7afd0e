"""Files that are there whole or not at all."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tfbert_npu.errors import GitLfsPointerError

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
def replacing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A temporary file beside `path` that takes its place when the block ends without an error.

    Whoever reads `path` sees the old content or the new one, also if this process is killed half way.
    """
    path = Path(path)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        # mkstemp's file is for its owner alone; the result gets the permissions of an ordinary new file.
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)
        os.replace(temporary, path)
    finally:
        with suppress(FileNotFoundError):
            temporary.unlink()
