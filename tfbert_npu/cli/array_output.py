"""Where vectors go: a .npy file that grows, or JSON lines."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, BinaryIO, Protocol

import click
import numpy as np

from tfbert_npu._files import replacing


class VectorSink(Protocol):
    """Takes the vectors of the next texts."""

    def write(self, texts: list[str], vectors: np.ndarray) -> None:
        """Write n texts and their vectors [n, H]."""


class _NpyFile:
    """A .npy file whose number of rows is known only at its end; numpy's header leaves room for it."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._rows = 0
        self._width: int | None = None

    def write(self, texts: list[str], vectors: np.ndarray) -> None:
        if self._width is None:
            self._width = vectors.shape[1]
            self._write_header()
        self._stream.write(np.ascontiguousarray(vectors, np.float32).tobytes())
        self._rows += len(vectors)

    def close(self) -> None:
        end = self._stream.tell()
        self._stream.seek(0)
        self._write_header()
        if self._rows and self._stream.tell() != end - self._rows * (self._width or 0) * 4:
            raise ValueError("the .npy header grew over the data; use --format jsonl for so many rows")

    def _write_header(self) -> None:
        header = {"descr": "<f4", "fortran_order": False, "shape": (self._rows, self._width or 0)}
        np.lib.format.write_array_header_1_0(self._stream, header)


class _JsonLines:
    """One object per text: {"text": ..., "embedding": [...]}."""

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream

    def write(self, texts: list[str], vectors: np.ndarray) -> None:
        for text, vector in zip(texts, vectors, strict=True):
            # float32 prints in nine digits at the most; float64's seventeen would double the file.
            numbers = [float(f"{number:.9g}") for number in vector]
            line = json.dumps({"text": text, "embedding": numbers}, ensure_ascii=False)
            self._stream.write(line + "\n")
        self._stream.flush()


def form_of(output: str) -> str:
    """The form that a file's name ends in: .npy, .jsonl or .json; JSON lines for standard output.

    Raises:
        click.BadParameter: It ends in something else.
    """
    suffix = Path(output).suffix
    if output == "-" or suffix in (".jsonl", ".json", ".ndjson"):
        return "jsonl"
    if suffix == ".npy":
        return "npy"
    raise click.BadParameter(
        f"{output} ends in neither .npy nor .jsonl; rename it, or say which with --format",
        param_hint="--output",
    )


@contextmanager
def open_sink(output: str, form: str) -> Iterator[VectorSink]:
    """A sink for `output`; `"-"` is standard output. A file appears whole or not at all.

    Args:
        output: Path of the file, or `"-"`.
        form: `"npy"` or `"jsonl"`.
    """
    if output == "-":
        if form == "npy":
            raise click.UsageError("standard output takes JSON lines only; name a file by --output")
        sys.stdout.reconfigure(encoding="utf-8")  # type: ignore[union-attr]
        yield _JsonLines(sys.stdout)
        return
    with replacing(output) as temporary:
        if form == "npy":
            with temporary.open("wb") as binary:
                vectors = _NpyFile(binary)
                yield vectors
                vectors.close()
        else:
            with temporary.open("w", encoding="utf-8") as text:
                yield _JsonLines(text)
