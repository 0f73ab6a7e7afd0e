"""Texts from a file or from standard input, one per line, read as they are needed."""

from __future__ import annotations

import io
import os
import stat
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import BinaryIO

_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


@contextmanager
def open_texts(path: str) -> Iterator[tuple[BinaryIO, int | None]]:
    """The bytes of `path`, or of standard input for `"-"`, and their number where it is known."""
    if path == "-":
        yield sys.stdin.buffer, None
        return
    with Path(path).open("rb") as stream:
        yield stream, Path(path).stat().st_size


def text_windows(
    source: str, most: int, consumed: Callable[[int], object] = lambda count: None
) -> Iterator[list[str]]:
    """The texts of a file, or of standard input for `"-"`, as many at a time as can be answered at once.

    Of a file that are `most`; of a terminal or a pipe those that are there, so that nobody waits for an
    answer until others have asked.

    Args:
        source: Path, or `"-"`.
        most: Texts at a time at most.
        consumed: Told the number of bytes of each line.
    """
    name = "standard input" if source == "-" else source
    with open_texts(source) as (stream, _):
        if _is_file(stream):
            texts = read_texts(stream, name, consumed)
            while window := list(islice(texts, most)):
                yield window
            return
        number = 1
        for lines in _arriving(stream):
            texts = read_texts(lines, name, consumed, number)
            while window := list(islice(texts, most)):
                number += len(window)
                yield window


def _is_file(stream: BinaryIO) -> bool:
    try:
        return stat.S_ISREG(os.fstat(stream.fileno()).st_mode)
    except io.UnsupportedOperation:  # bytes in memory
        return True


def _arriving(stream: BinaryIO) -> Iterator[list[bytes]]:
    """Whole lines as they arrive."""
    rest = b""
    while chunk := os.read(stream.fileno(), 65536):
        *lines, rest = (rest + chunk).split(b"\n")
        if lines:
            yield [line + b"\n" for line in lines]
    if rest:
        yield [rest]


def read_texts(
    stream: Iterable[bytes], name: str, consumed: Callable[[int], object], first: int = 1
) -> Iterator[str]:
    """The lines of a UTF-8 stream without their line ends, empty lines included.

    Args:
        stream: Bytes; a byte order mark at the start is dropped.
        name: What to call the stream in an error.
        consumed: Told the number of bytes of each line.
        first: Number of the first line.

    Raises:
        ValueError: A line is not UTF-8; names its number.
    """
    for number, line in enumerate(stream, start=first):
        consumed(len(line))
        if number == 1:
            line = line.removeprefix(_BYTE_ORDER_MARK)
        try:
            text = line.decode("utf-8")
        except UnicodeDecodeError as error:
            raise ValueError(
                f"{name}, line {number}: byte {error.start + 1} is not UTF-8; convert the file to UTF-8 first"
            ) from error
        yield text.removesuffix("\n").removesuffix("\r")
