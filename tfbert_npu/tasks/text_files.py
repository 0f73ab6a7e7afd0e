"""Lines and JSON of data files; what is wrong with one is said with its name and its line."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from typing import Any, NoReturn

from tfbert_npu.errors import TfbertNpuError


class DataError(TfbertNpuError, ValueError):
    """A data file is damaged, or not of the form that the task reads."""


class MissingColumnError(DataError):
    """A file lacks a column that was asked for."""


def check_columns(where: Any, columns: Iterable[str], found: Collection[str]) -> None:
    """Make sure that all columns are there.

    Raises:
        MissingColumnError: One is not.
    """
    missing = [name for name in columns if name not in found]
    if missing:
        raise MissingColumnError(
            f"{where} has no column {', '.join(map(repr, missing))}",
            f"it has {', '.join(map(repr, found)) or 'none'}",
        )


def read_text_lines(path: Path) -> Iterator[tuple[int, str]]:
    """The lines of a UTF-8 file, gzipped or not, with their numbers from 1 and their line ends.

    Only a line feed ends a line: Python's own lines end at a lone carriage return as well.

    Raises:
        FileNotFoundError: There is no such file.
        DataError: A line is not UTF-8, or the file is no gzip file although it is called so.
    """
    number = 0
    try:
        with gzip.open(path) if path.suffix.lower() == ".gz" else path.open("rb") as file:
            for number, line in enumerate(file, 1):
                yield number, line.decode("utf-8-sig" if number == 1 else "utf-8")
    except UnicodeDecodeError as error:
        raise DataError(f"{path} line {number} is not UTF-8 ({error.reason})", "convert the file") from error
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise DataError(f"{path} is a damaged gzip file ({error})", "write it again") from error


def parse_json(text: str, where: str) -> Any:
    """The value that a JSON text stands for.

    Raises:
        DataError: It is not JSON, or nests too deep, or holds a number of too many digits.
    """
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise DataError(
            f"{where} is not JSON ({error.msg} at line {error.lineno}, column {error.colno})"
        ) from error
    except (RecursionError, ValueError) as error:
        raise DataError(f"{where} cannot be read as JSON ({error})", "correct it") from error


def as_text(value: Any, where: str, *, numbers: bool = True) -> str:
    """A string of a data file; with `numbers`, a number counts as its digits.

    Raises:
        DataError: It is something else, or holds half of a surrogate pair, which is no character.
    """
    if numbers and isinstance(value, int | float) and not isinstance(value, bool):
        value = str(value)
    if not isinstance(value, str):
        refuse(where, "must be a text", value)
    if any("\ud800" <= character <= "\udfff" for character in value):
        refuse(where, "holds half of a surrogate pair", value)
    return value


def refuse(where: str, what: str, value: Any) -> NoReturn:
    """Raise a `DataError` that shows the value.

    Raises:
        DataError: Always.
    """
    shown = ascii(value)
    raise DataError(f"{where} {what}, got {shown if len(shown) <= 60 else shown[:57] + '...'}")
