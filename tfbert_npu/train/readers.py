"""Data files as streams of examples: CSV, TSV, JSON lines, CoNLL, SQuAD and COPA.

Every reader yields one example after the other and can be called again for the next epoch. What is wrong
with a file is said with its name and line.
"""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from tfbert_npu.train.examples import ChoiceExample, QuestionExample, TaggedExample, TextExample

_DELIMITERS = {".csv": ",", ".tsv": "\t"}
_JSON_LINES = (".jsonl", ".ndjson")


def read_rows(path: Path, columns: Sequence[str]) -> Iterator[tuple[int, dict[str, Any]]]:
    """The lines of a CSV or TSV file with a header, or the objects of a JSON lines file.

    Args:
        path: The ending says which of them: .csv, .tsv, .jsonl or .ndjson.
        columns: Names of the columns that must be there.

    Yields:
        The number of the line (from 1) on which the row ends, and the row.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The ending is another, a column is missing, or a row is damaged.
    """
    suffix = path.suffix.lower()
    if suffix in _DELIMITERS:
        yield from _read_delimited(path, columns, _DELIMITERS[suffix])
    elif suffix in _JSON_LINES:
        yield from _read_json_lines(path, columns)
    else:
        known = ", ".join([*_DELIMITERS, *_JSON_LINES])
        raise ValueError(f"{path} ends with none of {known}; rename it to say its format")


def _read_delimited(
    path: Path, columns: Sequence[str], delimiter: str
) -> Iterator[tuple[int, dict[str, Any]]]:
    csv.field_size_limit(sys.maxsize)
    # Without "strict" a stray quote would swallow the lines after it in silence.
    with path.open(encoding="utf-8-sig", newline="") as file:
        rows = csv.DictReader(file, delimiter=delimiter, strict=True)
        try:
            _check_columns(path, columns, rows.fieldnames or ())
            for row in rows:
                if None in row or None in row.values():
                    raise ValueError(
                        f"{path} line {rows.line_num}: expected {len(rows.fieldnames or ())} columns "
                        f"({', '.join(rows.fieldnames or ())}), found another number; quote what holds a "
                        f"{delimiter!r}"
                    )
                yield rows.line_num, row
        except csv.Error as error:
            raise ValueError(
                f"{path} line {rows.reader.line_num}: {error}; mend the quotes there or before"
            ) from error
        except UnicodeDecodeError as error:
            raise ValueError(f"{path} is not UTF-8 ({error.reason}); convert it") from error


def _read_json_lines(path: Path, columns: Sequence[str]) -> Iterator[tuple[int, dict[str, Any]]]:
    with path.open(encoding="utf-8-sig") as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except json.JSONDecodeError as error:
                raise ValueError(f"{path} line {number} is not JSON ({error.msg})") from error
            if not isinstance(row, dict):
                raise ValueError(f"{path} line {number} must be a JSON object, not a {type(row).__name__}")
            _check_columns(f"{path} line {number}", columns, row)
            yield number, row


def _check_columns(where: Any, columns: Sequence[str], found: Any) -> None:
    missing = [name for name in columns if name not in found]
    if missing:
        raise ValueError(
            f"{where} has no column {', '.join(map(repr, missing))}; "
            f"it has {', '.join(map(repr, found)) or 'none'}"
        )


def read_texts(
    path: Path,
    text_column: str = "text",
    pair_column: str | None = None,
    label_column: str | None = "label",
    kind: str = "class",
) -> Iterator[TextExample]:
    """Labelled texts, or pairs, from a file of rows.

    Args:
        path: See `read_rows`.
        text_column: Name of the column with the text.
        pair_column: Name of the column with the second text, if any.
        label_column: Name of the column with the label; None: there is none.
        kind: What a label is: `"class"`, a name; `"classes"`, names in a JSON list or between `|`;
            `"number"`.

    Raises:
        ValueError: See `read_rows`; or a label is empty, or no number where one is due.
    """
    columns = [name for name in (text_column, pair_column, label_column) if name is not None]
    for line, row in read_rows(path, columns):
        label: str | tuple[str, ...] | float | None = None
        if label_column is not None:
            label = _label(row[label_column], kind, f"{path} line {line}: {label_column}")
        pair = None if pair_column is None else str(row[pair_column])
        yield TextExample(str(row[text_column]), pair, label)


def _label(value: Any, kind: str, where: str) -> str | tuple[str, ...] | float:
    if kind == "number":
        try:
            number = float(value)
        except (TypeError, ValueError):
            number = float("nan")
        if number != number or number in (float("inf"), float("-inf")):
            raise ValueError(f"{where} must be a finite number for regression, got {value!r}")
        return number
    if kind == "classes":
        names = value if isinstance(value, list) else [part for part in str(value).split("|") if part.strip()]
        return tuple(str(name).strip() for name in names)
    label = str(value).strip()
    if not label or value is None:
        raise ValueError(f"{where} is empty; every row needs a label")
    return label


def read_choices(
    path: Path, text_column: str = "text", choice_columns: Sequence[str] = (), label_column: str = "label"
) -> Iterator[ChoiceExample]:
    """Texts with choices: a file of rows (`label_column`: index of the right one, from 0), or COPA's XML.

    Raises:
        ValueError: See `read_rows`; or a label is no index of a choice.
    """
    if path.suffix.lower() == ".xml":
        yield from read_copa(path)
        return
    if len(choice_columns) < 2:
        raise ValueError("multiple choice needs the names of at least two columns with choices")
    for line, row in read_rows(path, [text_column, *choice_columns, label_column]):
        value = str(row[label_column])
        if not value.isdecimal() or int(value) >= len(choice_columns):
            raise ValueError(
                f"{path} line {line}: {label_column} must be the index of a choice, 0 to "
                f"{len(choice_columns) - 1}, got {value!r}"
            )
        yield ChoiceExample(
            str(row[text_column]), tuple(str(row[name]) for name in choice_columns), int(value)
        )


_COPA_QUESTION = {"cause": "What was the cause of this?", "effect": "What happened as a result?"}


def read_copa(path: Path) -> Iterator[ChoiceExample]:
    """Items of COPA (Roemmele et al. 2011): a premise with its question, and two alternatives."""
    try:
        items = ElementTree.parse(path).getroot().iter("item")
        for item in items:
            premise, first, second = (item.findtext(tag, "").strip() for tag in ("p", "a1", "a2"))
            question = _COPA_QUESTION[item.attrib["asks-for"]]
            right = int(item.attrib["most-plausible-alternative"]) - 1
            yield ChoiceExample(f"{premise} {question}", (first, second), right)
    except (ElementTree.ParseError, KeyError, ValueError) as error:
        raise ValueError(f"{path} is no COPA file ({error!r})") from error


def read_conll(path: Path, word_column: int = 0, tag_column: int = -1) -> Iterator[TaggedExample]:
    """Sentences of a CoNLL file: one word per line with its tag, an empty line between sentences.

    Columns are parted by tabs where the file's first line has one, else by white space. `-DOCSTART-` lines
    are left out.

    Raises:
        ValueError: A line has another number of columns than the first one, or there is no tag.
    """
    words: list[str] = []
    tags: list[str] = []
    width = 0
    separator: str | None = None
    try:
        with path.open(encoding="utf-8-sig") as file:
            for number, line in enumerate(file, 1):
                line = line.rstrip("\r\n")
                if not line.strip():
                    if words:
                        yield TaggedExample(tuple(words), tuple(tags))
                        words, tags = [], []
                    continue
                if not width:
                    separator = "\t" if "\t" in line else None
                columns = line.split(separator)
                if not width:
                    width = len(columns)
                    if width < 2:
                        raise ValueError(
                            f"{path} line {number}: expected a word and its tag, got {line!r}; part them by "
                            "a tab or a space"
                        )
                if len(columns) != width:
                    raise ValueError(
                        f"{path} line {number}: {len(columns)} columns where the lines before have {width}; "
                        "mend that line"
                    )
                if columns[0] == "-DOCSTART-":
                    continue
                words.append(columns[word_column])
                tags.append(columns[tag_column].strip())
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8 ({error.reason}); convert it") from error
    if words:
        yield TaggedExample(tuple(words), tuple(tags))


def read_squad(path: Path) -> Iterator[QuestionExample]:
    """Questions of a SQuAD file, version 1.1 or 2.0 (Rajpurkar et al. 2016, 2018).

    Raises:
        ValueError: The file is not of that form, or an answer is not where it says.
    """
    try:
        articles = json.loads(path.read_text(encoding="utf-8-sig"))["data"]
        for place, article in enumerate(articles):
            group = str(article.get("title", place))
            for paragraph in article["paragraphs"]:
                context = paragraph["context"]
                for entry in paragraph["qas"]:
                    answers = tuple(
                        (str(found["text"]), int(found["answer_start"]))
                        for found in ([] if entry.get("is_impossible") else entry.get("answers", []))
                    )
                    for text, start in answers:
                        if context[start : start + len(text)] != text:
                            raise ValueError(
                                f"the answer {text!r} of question {entry['id']} is not at character {start} "
                                "of its context"
                            )
                    yield QuestionExample(str(entry["id"]), entry["question"], context, answers, group)
    except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} is no SQuAD file ({type(error).__name__}: {error})") from error


def read_lines(path: Path) -> Iterator[TextExample]:
    """The lines of a plain text; an empty text stands for an empty line, which ends a document."""
    try:
        with path.open(encoding="utf-8-sig") as file:
            for line in file:
                yield TextExample(line.strip())
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8 ({error.reason}); convert it") from error
