"""Where converted checkpoints are kept, so that the next start converts nothing. It needs no `onnx`."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

from tfbert_npu._files import replacing, scratch_directory
from tfbert_npu._version import __version__
from tfbert_npu.artifact.directory import staged
from tfbert_npu.artifact.hashing import sha256_of
from tfbert_npu.errors import ArtifactError, FailedWriteError, TfbertNpuError

T = TypeVar("T")
_LOG = logging.getLogger(__name__)

_WRITER = 1
"""Raise it when `write_graph` writes another graph for the same checkpoint."""
# Coarse clocks: FAT counts 2 seconds. A file that was changed again so soon may look unchanged.
_SETTLED_NS = 3 * 10**9
_kept: list[tempfile.TemporaryDirectory[str]] = []


class ConversionError(TfbertNpuError):
    """A checkpoint's ONNX graph does not compute what the checkpoint does."""


def cache_directory() -> Path:
    """`$XDG_CACHE_HOME/tfbert-npu`, by default `~/.cache/tfbert-npu`, as the XDG specification says."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    root = Path(base) if os.path.isabs(base) else Path.home() / ".cache"
    return root / "tfbert-npu"


def entry_key(folder: Path, files: Sequence[str], head: str) -> str:
    """The name of a checkpoint's entry: SHA-256 of the content of its files and of what is made of them.

    Args:
        folder: Where the checkpoint is.
        files: Its weights, configuration, tokenizer: all that the conversion reads, relative to the folder.
        head: What is put on the encoder.

    Raises:
        OSError: A file cannot be read.
    """
    digest = hashlib.sha256(f"{__version__} {_WRITER} {head}\n".encode())
    for name, content in sorted(_contents(folder, files).items()):
        digest.update(f"{name} {content}\n".encode())
    return digest.hexdigest()[:40]


def _contents(folder: Path, files: Sequence[str]) -> dict[str, str]:
    """SHA-256 of each file, remembered so that a start does not read the weights only to hash them.

    What is remembered holds for a file of the same inode, size, time of change and time of status change. No
    program can set the last one, so that a file which was written since is always read again; one that was
    written less than three seconds ago is not remembered, for the clock of its file system may be as coarse.
    """
    place = hashlib.sha256(os.fsencode(os.path.realpath(folder))).hexdigest()[:40]
    notes = cache_directory() / "hashes" / f"{place}.json"
    known: dict[str, list[object]] = {}
    with suppress(OSError, ValueError):
        read = json.loads(notes.read_text(encoding="utf-8"))
        known = read if isinstance(read, dict) else {}
    found: dict[str, list[object]] = {}
    for name in files:
        stat = os.stat(folder / name)
        identity = [stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns]
        noted = known.get(name)
        same = isinstance(noted, list) and len(noted) == 6 and noted[:5] == identity
        settled = time.time_ns() - max(stat.st_mtime_ns, stat.st_ctime_ns) > _SETTLED_NS
        content = str(noted[5]) if same and noted is not None else sha256_of(folder / name)
        found[name] = [*identity, content] if settled else [None] * 5 + [content]
    if {**known, **found} != known:
        with suppress(OSError):  # a cache that cannot be written costs time and nothing else
            notes.parent.mkdir(parents=True, exist_ok=True)
            with replacing(notes) as temporary:
                temporary.write_text(json.dumps({**known, **found}), encoding="utf-8")
    return {name: str(values[5]) for name, values in found.items()}


def open_entry(key: str, convert: Callable[[], Callable[[Path], object]], load: Callable[[Path], T]) -> T:
    """An entry of the cache, loaded; it is made first where there is none, or a damaged one.

    Two processes that want the same entry both make one, and both use that of the first to be ready. Where
    the cache cannot be written, the entry lies in a temporary directory until this process ends.

    Args:
        key: See `entry_key`.
        convert: Reads the checkpoint, and gives what fills an empty directory.
        load: Loads a filled one, and checks it.

    Raises:
        OSError: The checkpoint cannot be read, or no temporary directory be written.
    """
    entry, damaged = cache_directory() / "onnx" / key, False
    if entry.is_dir():
        try:
            return load(entry)
        except (ArtifactError, FileNotFoundError) as error:
            damaged = True
            _LOG.warning("the converted model in the cache is damaged (%s); it is converted again", error)
    write = convert()
    try:
        with staged(entry, overwrite=damaged) as staging:
            write(staging)
        return load(entry)
    except FileExistsError:
        if entry.is_dir():
            return load(entry)  # another process was faster
        cause = f"{entry} is a file"
    except OSError as error:
        cause = error.cause if isinstance(error, FailedWriteError) else str(error)
    _LOG.warning(
        "the converted model is used once and not kept (%s); set XDG_CACHE_HOME to a directory for it", cause
    )
    temporary = kept_directory()
    write(temporary)
    return load(temporary)


def kept_directory() -> Path:
    """A temporary directory that is there until this process ends."""
    _kept.append(directory := scratch_directory())
    return Path(directory.name)
