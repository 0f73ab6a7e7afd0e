"""Files of a model's directory: their list, and names that must not lead out of it."""

from __future__ import annotations

import os
from pathlib import Path, PurePosixPath, PureWindowsPath

from tfbert_npu.errors import CheckpointError

_MAX_DEPTH = 4
_MOST_NAME = 255  # bytes, of Linux' file systems
_MAX_FILES = 20_000


def list_files(directory: Path) -> list[str]:
    """Files below a directory as sorted POSIX paths; hidden folders and what lies deeper than 4 are left out.

    Raises:
        CheckpointError: There are more than 20 000 files, so this is no model directory.
    """
    found: list[str] = []
    for folder, folders, files in os.walk(directory):
        here = Path(folder).relative_to(directory)
        folders[:] = [name for name in folders if not name.startswith(".")]
        if len(here.parts) >= _MAX_DEPTH:
            folders.clear()
        found += [(here / name).as_posix() for name in files]
        if len(found) > _MAX_FILES:
            raise CheckpointError(
                f"{directory} holds more than {_MAX_FILES} files", "give the directory of one model"
            )
    return sorted(found)


def _is_unicode(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def file_inside(directory: Path, name: str) -> Path:
    """The file that a name read from a model's own files means, such as a shard named in an index.

    Raises:
        CheckpointError: The name is absolute, climbs with `..`, or leads out of the directory by a link. (The
            links of huggingface_hub's cache, from a snapshot to its blobs, are what they should be.)
    """
    windows = PureWindowsPath(name)
    posix = PurePosixPath(name)
    if (
        not posix.parts
        or posix.is_absolute()
        or windows.drive
        or windows.root
        or "\0" in name
        or any(len(part.encode("utf-8", "surrogatepass")) > _MOST_NAME for part in posix.parts)
        or not _is_unicode(name)
        or ".." in windows.parts
    ):
        raise CheckpointError(
            f"{directory} names the file {name!r}, which is not a path inside it", "do not use this model"
        )
    path = directory / posix
    try:
        real = path.resolve()
    except (OSError, RuntimeError) as error:
        raise CheckpointError(f"{path} cannot be followed ({error})", "remove the link") from error
    if not any(real.is_relative_to(root) for root in _roots(directory)):
        raise CheckpointError(
            f"{path} is a link that leads out of its directory, to {real}",
            "replace it with a copy of the file",
        )
    return path


def _roots(directory: Path) -> list[Path]:
    """The directory, and in huggingface_hub's cache the two stores that a snapshot's links point into."""
    real = directory.resolve()
    roots = [real]
    for snapshot in (real, *real.parents):
        if snapshot.parent.name == "snapshots" and snapshot.parent.parent.name.startswith("models--"):
            storage = snapshot.parent.parent
            roots += [storage / "blobs", storage.parent / "blobs"]
    return roots
