"""Texts from a file or from standard input, one per line, read as they are needed."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
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


def read_texts(stream: BinaryIO, name: str, consumed: Callable[[int], object]) -> Iterator[str]:
    """The lines of a UTF-8 stream without their line ends, empty lines included.

    Args:
        stream: Bytes; a byte order mark at the start is dropped.
        name: What to call the stream in an error.
        consumed: Told the number of bytes of each line.

    Raises:
        ValueError: A line is not UTF-8; names its number.
    """
    for number, line in enumerate(stream, start=1):
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
