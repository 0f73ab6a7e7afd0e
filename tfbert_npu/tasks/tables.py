"""Parquet files and directories of Hugging Face `datasets`, as rows with names in place of class numbers."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from tfbert_npu.errors import require
from tfbert_npu.tasks.examples import TaggedExample
from tfbert_npu.tasks.text_files import DataError, as_text, check_columns

_ROWS = 1000


def is_table(path: Path) -> bool:
    """Whether it is read here: a Parquet file, or a directory."""
    return path.suffix.lower() == ".parquet" or path.is_dir()


def read_table(path: Path, columns: Sequence[str]) -> Iterator[tuple[int, dict[str, Any]]]:
    """The rows of a Parquet file (pyarrow), or of a directory that `Dataset.save_to_disk` wrote (datasets).

    Numbers of a `ClassLabel` become the names that the file gives them.

    Args:
        path: The file or the directory of one split.
        columns: Names of the columns to read.

    Yields:
        The number of the row, from 1, and the row.

    Raises:
        MissingExtraError: The library is not installed; says the pip command.
        FileNotFoundError: There is no such file.
        DataError: A column is missing, the file is damaged, or the directory holds several splits or no data.
    """
    parquet, arrow = require("pyarrow.parquet", "data"), require("pyarrow", "data")
    try:
        if path.is_dir():
            dataset = require("datasets", "data").load_from_disk(str(path))
            if not hasattr(dataset, "features"):
                splits = ", ".join(str(path / name) for name in dataset)
                raise DataError(f"{path} holds several splits", f"give one of {splits}")
            schema = dataset.features.arrow_schema
            chosen = dataset.select_columns([name for name in columns if name in dataset.features])
            batches = chosen.with_format("arrow").iter(_ROWS)
        else:
            file = parquet.ParquetFile(path)
            schema = file.schema_arrow
            batches = file.iter_batches(_ROWS, columns=[name for name in columns if name in schema.names])
        check_columns(path, columns, schema.names)
        names = _class_names(schema)
        rows = (row for batch in batches for row in batch.to_pylist())
        for number, row in enumerate(rows, 1):
            where = f"{path} row {number}"
            yield number, {name: _named(row[name], names.get(name), where) for name in row}
    except DataError:
        raise
    except FileNotFoundError as error:
        if not path.is_dir():
            raise
        raise DataError(
            f"{path} is no directory that Dataset.save_to_disk wrote", "give a file or such a directory"
        ) from error
    except (arrow.ArrowException, ValueError, KeyError, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise  # the system's own says what it is
        raise DataError(f"{path} is damaged ({str(error).splitlines()[0]})", "write it again") from error


def read_tagged_table(path: Path) -> Iterator[TaggedExample]:
    """Sentences of a table with the columns that `datasets` for named entities have: `tokens` and `ner_tags`.

    Raises:
        DataError: See `read_table`; or a sentence has another number of tags than words.
    """
    for number, row in read_table(path, ("tokens", "ner_tags")):
        where = f"{path} row {number}"
        words, tags = (
            tuple(as_text(one, f"{where}: {name}") for one in row[name] or ())
            for name in ("tokens", "ner_tags")
        )
        if len(words) != len(tags):
            raise DataError(f"{where} has {len(words)} words but {len(tags)} tags", "correct that row")
        yield TaggedExample(words, tags)


def _class_names(schema: Any) -> dict[str, list[str]]:
    """Column -> names of its classes, as `datasets` notes them in the metadata."""
    try:
        info = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))
        features = info.get("info", {}).get("features", {})
    except (ValueError, AttributeError):
        return {}
    found = {}
    for column, feature in features.items():
        # A list of classes is written in one of three ways, by the version.
        inner = feature[0] if isinstance(feature, list) else feature.get("feature", feature)
        if isinstance(inner, dict) and inner.get("_type") == "ClassLabel":
            found[column] = list(inner["names"])
    return found


def _named(value: Any, names: list[str] | None, where: str) -> Any:
    if names is None or value is None:
        return value
    if isinstance(value, list):
        return [_named(one, names, where) for one in value]
    if not 0 <= value < len(names):
        raise DataError(f"{where} has the class {value}, but there are {len(names)}", "it may be unlabeled")
    return names[value]
