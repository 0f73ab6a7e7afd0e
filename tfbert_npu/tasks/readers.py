"""Data files as streams of examples: CSV, TSV, JSON lines, SQuAD and COPA; `conll` and `tables` read others.

Every reader yields one example after the other and can be called again for the next epoch. What is wrong
with a file is said with its name and line.
"""

from __future__ import annotations

import csv
import math
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from tfbert_npu.tasks.examples import ChoiceExample, QuestionExample, TextExample
from tfbert_npu.tasks.tables import is_table, read_table
from tfbert_npu.tasks.text_files import DataError, as_text, check_columns, parse_json, read_text_lines, refuse

_DELIMITERS = (",", ";", "\t", "|")
_JSON_LINES = (".jsonl", ".ndjson")


def read_rows(
    path: Path, columns: Sequence[str], delimiter: str | None = None
) -> Iterator[tuple[int, dict[str, Any]]]:
    """The lines of a CSV or TSV file with a header, the objects of a JSON lines file, or the rows of a table.

    CSV fields may stand in quotation marks (RFC 4180). In TSV a quotation mark is a character as any other,
    as in GLUE's files and IANA's text/tab-separated-values.

    Args:
        path: The ending says which of them: .csv, .tsv, .jsonl or .ndjson, also with .gz behind; .parquet, or
            a directory of `datasets` (see `tables.read_table`).
        columns: Names of the columns that must be there.
        delimiter: Separates the fields of a CSV file; by default the first of `,`, `;`, tab and `|` by which
            the header has all of `columns`. With it, any other ending counts as CSV.

    Yields:
        The number of the line (from 1) on which the row ends, and the row.

    Raises:
        FileNotFoundError: There is no such file.
        DataError: The ending is another, a column is missing, or a row is damaged.
    """
    suffix = Path(path.stem if path.suffix.lower() == ".gz" else path.name).suffix.lower()
    if is_table(path):
        yield from read_table(path, columns)
    elif suffix == ".tsv" and delimiter in (None, "\t"):
        yield from _read_tsv(path, columns)
    elif suffix in _JSON_LINES and delimiter is None:
        yield from _read_json_lines(path, columns)
    elif suffix == ".csv" or delimiter is not None:
        yield from _read_csv(path, columns, delimiter)
    else:
        known = ", ".join([".csv", ".tsv", *_JSON_LINES, ".parquet"])
        raise DataError(f"{path} ends with none of {known}", "rename it to say its format")


def _read_csv(
    path: Path, columns: Sequence[str], delimiter: str | None
) -> Iterator[tuple[int, dict[str, Any]]]:
    csv.field_size_limit(sys.maxsize)
    if delimiter is None:
        header = next((line for _, line in read_text_lines(path)), "")
        delimiter = next((mark for mark in _DELIMITERS if _has_columns(header, mark, columns)), ",")
    lines = (line for _, line in read_text_lines(path))
    # Without "strict" a stray quote would swallow the lines after it in silence.
    rows = csv.DictReader(lines, delimiter=delimiter, strict=True)
    try:
        check_columns(path, columns, rows.fieldnames or ())
        for row in rows:
            if None in row or None in row.values():
                raise _another_width(
                    path, rows.line_num, rows.fieldnames or (), delimiter, "; quote what holds a"
                )
            yield rows.line_num, row
    except csv.Error as error:
        raise DataError(
            f"{path} line {rows.reader.line_num}: {error}", "correct the quotes there or before"
        ) from error


def _has_columns(header: str, delimiter: str, columns: Sequence[str]) -> bool:
    try:
        return set(columns) <= set(next(csv.reader([header], delimiter=delimiter), ()))
    except csv.Error:  # a carriage return outside of quotes
        return False


def _read_tsv(path: Path, columns: Sequence[str]) -> Iterator[tuple[int, dict[str, Any]]]:
    names: list[str] = []
    for number, line in read_text_lines(path):
        fields = line.rstrip("\r\n").split("\t")
        if not names:
            names = fields if line.strip("\r\n") else []
            check_columns(path, columns, names)
        elif fields != [""]:
            if len(fields) != len(names):
                raise _another_width(path, number, names, "\t", "; put a space in place of a")
            yield number, dict(zip(names, fields, strict=True))
    check_columns(path, columns, names)


def _another_width(path: Path, line: int, names: Sequence[str], delimiter: str, remedy: str) -> DataError:
    return DataError(
        f"{path} line {line}: expected {len(names)} columns ({', '.join(names)}), found another number"
        f"{remedy} {delimiter!r} in a field"
    )


def _read_json_lines(path: Path, columns: Sequence[str]) -> Iterator[tuple[int, dict[str, Any]]]:
    for number, line in read_text_lines(path):
        if not line.strip():
            continue
        where = f"{path} line {number}"
        row = parse_json(line, where)
        if not isinstance(row, dict):
            raise DataError(f"{where} must be a JSON object, not a {type(row).__name__}")
        check_columns(where, columns, row)
        yield number, row


def read_texts(
    path: Path,
    text_column: str = "text",
    pair_column: str | None = None,
    label_column: str | None = "label",
    kind: str = "class",
    delimiter: str | None = None,
) -> Iterator[TextExample]:
    """Labeled texts, or pairs, from a file of rows.

    Args:
        path: See `read_rows`.
        text_column: Name of the column with the text.
        pair_column: Name of the column with the second text, if any.
        label_column: Name of the column with the label; None: there is none.
        kind: What a label is: `"class"`, a name; `"classes"`, names in a JSON list or between `|`;
            `"number"`.
        delimiter: See `read_rows`.

    Raises:
        DataError: See `read_rows`; or a label is empty, or no number where one is due.
    """
    columns = [name for name in (text_column, pair_column, label_column) if name is not None]
    for line, row in read_rows(path, columns, delimiter):
        where = f"{path} line {line}"
        label: str | tuple[str, ...] | float | None = None
        if label_column is not None:
            label = _label(row[label_column], kind, f"{where}: {label_column}")
        pair = None if pair_column is None else as_text(row[pair_column], f"{where}: {pair_column}")
        yield TextExample(as_text(row[text_column], f"{where}: {text_column}"), pair, label)


def _label(value: Any, kind: str, where: str) -> str | tuple[str, ...] | float:
    if kind == "number":
        try:
            number = float(value)
        except (TypeError, ValueError, OverflowError):
            number = math.nan
        if not math.isfinite(number):
            refuse(where, "must be a finite number for regression", value)
        return number
    if kind == "classes":
        names = (
            value
            if isinstance(value, list)
            else [part for part in _name(value, where).split("|") if part.strip()]
        )
        return tuple(_name(name, where) for name in names)
    label = _name(value, where) if value is not None else ""
    if not label:
        raise DataError(f"{where} is empty", "every row needs a label")
    return label


def _name(value: Any, where: str) -> str:
    return str(value) if isinstance(value, bool) else as_text(value, where).strip()


def read_choices(
    path: Path,
    text_column: str = "text",
    choice_columns: Sequence[str] = (),
    label_column: str = "label",
    delimiter: str | None = None,
) -> Iterator[ChoiceExample]:
    """Texts with choices: a file of rows (`label_column`: index of the right one, from 0), or COPA's XML.

    Raises:
        DataError: See `read_rows`; or a label is no index of a choice.
    """
    if path.suffix.lower() == ".xml":
        yield from read_copa(path)
        return
    if len(choice_columns) < 2:
        raise DataError("multiple choice needs the names of at least two columns with choices")
    for line, row in read_rows(path, [text_column, *choice_columns, label_column], delimiter):
        where = f"{path} line {line}"
        right = {str(index): index for index in range(len(choice_columns))}.get(str(row[label_column]))
        if right is None:
            expected = f"must be the index of a choice, 0 to {len(choice_columns) - 1}"
            refuse(f"{where}: {label_column}", expected, row[label_column])
        text, *choices = (as_text(row[name], f"{where}: {name}") for name in (text_column, *choice_columns))
        yield ChoiceExample(text, tuple(choices), right)


_COPA_QUESTION = {"cause": "What was the cause of this?", "effect": "What happened as a result?"}


def read_copa(path: Path) -> Iterator[ChoiceExample]:
    """Items of COPA (Roemmele et al. 2011): a premise with its question, and two alternatives.

    Raises:
        FileNotFoundError: There is no such file.
        DataError: It is not of that form.
    """
    try:
        items = ElementTree.parse(path).getroot().iter("item")
        for item in items:
            premise, first, second = (item.findtext(tag, "").strip() for tag in ("p", "a1", "a2"))
            question = _COPA_QUESTION[item.attrib["asks-for"]]
            right = ("1", "2").index(item.attrib["most-plausible-alternative"])
            yield ChoiceExample(f"{premise} {question}", (first, second), right)
    except (ElementTree.ParseError, LookupError, ValueError, RecursionError) as error:
        raise DataError(f"{path} is no COPA file ({error!r})") from error


def read_squad(path: Path) -> Iterator[QuestionExample]:
    """Questions of a SQuAD file, version 1.1 or 2.0 (Rajpurkar et al. 2016, 2018), or of a table like it.

    Raises:
        FileNotFoundError: There is no such file.
        DataError: The file is not of that form, or an answer is not where it says.
    """
    if is_table(path):
        for number, row in read_table(path, ("id", "question", "context", "answers")):
            where = f"{path} row {number}"
            context = as_text(row["context"], f"{where}: context", numbers=False)
            found = row["answers"] or {"text": [], "answer_start": []}
            pairs = zip(found["text"], found["answer_start"], strict=True)
            answers = [{"text": text, "answer_start": start} for text, start in pairs]
            yield _question({**row, "answers": answers}, context, context, path, where)
        return
    document = parse_json("".join(line for _, line in read_text_lines(path)), str(path))
    try:
        for place, article in enumerate(document["data"]):
            group = str(article.get("title", place))
            for number, paragraph in enumerate(article["paragraphs"]):
                where = f"{path} data[{place}].paragraphs[{number}]"
                context = as_text(paragraph["context"], f"{where}.context", numbers=False)
                for entry in paragraph["qas"]:
                    yield _question(entry, context, group, path, where)
    except (KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{path} is no SQuAD file ({type(error).__name__}: {error})") from error


def _question(entry: Any, context: str, group: str, path: Path, where: str) -> QuestionExample:
    name = as_text(entry["id"], f"{where}.qas id")
    question = as_text(entry["question"], f"{path}: the question {name}", numbers=False)
    answers = []
    for found in [] if entry.get("is_impossible") else entry.get("answers", []):
        text = as_text(found["text"], f"{path}: an answer of question {name}", numbers=False)
        start = found["answer_start"]
        if not isinstance(start, int) or isinstance(start, bool) or not 0 <= start <= len(context):
            refuse(f"{path}: the answer_start of question {name}", "must be an index of its context", start)
        if context[start : start + len(text)] != text:
            raise DataError(
                f"{path}: the answer {text[:60]!r} of question {name} is not at character {start} "
                "of its context"
            )
        answers.append((text, start))
    return QuestionExample(name, question, context, tuple(answers), group)


def read_lines(path: Path) -> Iterator[TextExample]:
    """The lines of a plain text; an empty text stands for an empty line, which ends a document."""
    for _, line in read_text_lines(path):
        yield TextExample(line.strip())
