"""Texts that belong together: pairs, pairs with scores, and triplets."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path

from tfbert_npu.tasks.examples import SimilarExample
from tfbert_npu.tasks.readers import read_rows
from tfbert_npu.tasks.text_files import DataError, MissingColumnError, as_text, refuse

_LAYOUTS: tuple[tuple[tuple[str, ...], bool], ...] = (
    (("text_a", "text_b"), True),
    (("text_a", "text_b"), False),
    (("anchor", "positive", "negative"), False),
    (("anchor", "positive"), False),
)
"""Columns with texts, and whether one with scores goes with them; the first that a file has."""


def read_similar(
    path: Path, pair: tuple[str, str] | None = None, score: str = "score", delimiter: str | None = None
) -> Iterator[SimilarExample]:
    """The rows of a file with the columns `text_a`, `text_b` and perhaps `score`, or `anchor`, `positive` and
    perhaps `negative`.

    Args:
        path: See `read_rows`.
        pair: Names of the columns of a pair instead of those.
        score: Name of the column with the wanted cosine; pairs without that column have none.
        delimiter: See `read_rows`.

    Raises:
        DataError: See `read_rows`; or the file has none of these columns, or a score is none.
    """
    layouts = [(pair, True), (pair, False)] if pair else _LAYOUTS
    columns, scored = _layout(path, layouts, score, delimiter)
    for line, row in read_rows(path, (*columns, *([score] if scored else ())), delimiter):
        where = f"{path} line {line}"
        texts = tuple(as_text(row[name], f"{where}: {name}") for name in columns)
        yield SimilarExample(texts, _cosine(row[score], f"{where}: {score}") if scored else None)


def _layout(
    path: Path, layouts: Sequence[tuple[tuple[str, ...], bool]], score: str, delimiter: str | None
) -> tuple[tuple[str, ...], bool]:
    """The columns with texts, and whether there is one with scores, as the file's first row says."""
    for columns, scored in layouts:
        try:
            next(read_rows(path, (*columns, *([score] if scored else ())), delimiter), None)
        except MissingColumnError:
            continue
        return columns, scored
    names = dict.fromkeys(" and ".join(columns) for columns, _ in layouts)
    raise DataError(
        f"{path} has not the columns {', or '.join(names)}",
        "rename its columns, or name those of a pair with --text-column and --pair-column",
    )


def _cosine(value: object, where: str) -> float:
    try:
        number = float(str(value))
    except ValueError:
        number = math.nan
    if not -1 <= number <= 1:
        refuse(where, "must be a number from -1 to 1; divide by the largest score", value)
    return number
