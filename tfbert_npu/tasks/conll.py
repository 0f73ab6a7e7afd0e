"""CoNLL files as they are found: a word per line with its label, an empty line between sentences."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from tfbert_npu.tasks.examples import TaggedExample
from tfbert_npu.tasks.tables import is_table, read_tagged_table
from tfbert_npu.tasks.text_files import DataError, read_text_lines

_DOCUMENT = "-DOCSTART-"
_BLANK = " \t\r\n"
_LABEL = re.compile(r"O|[BIESMLU][-_].+")


def read_conll(
    path: Path, word_column: int | None = None, tag_column: int | None = None
) -> Iterator[TaggedExample]:
    """Sentences of a CoNLL file, or of a table; see `read_tagged_table`.

    Tabs separate columns where the first word's line has one, else spaces and tabs; a no-break space is part
    of a word. Left out are `-DOCSTART-` lines and comments: lines before a sentence's first word that begin
    with `#` and are no word with its label.

    Args:
        path: The file.
        word_column: Index of the column with the word, from 0; by default the first, or the second where the
            first one numbers the words (GermEval, CoNLL-U).
        tag_column: Index of the column with the label; by default the last one, or the third where the
            words are numbered and third and fourth hold labels (GermEval: the outer entities).

    Raises:
        FileNotFoundError: There is no such file.
        DataError: A line has another number of columns than the first one, or there is no label.
    """
    if is_table(path):
        yield from read_tagged_table(path)
        return
    words: list[str] = []
    tags: list[str] = []
    layout: _Layout | None = None
    for number, line in read_text_lines(path):
        line = line.rstrip("\r\n")
        if not line.strip(_BLANK):
            if words:
                yield TaggedExample(tuple(words), tuple(tags))
                words, tags = [], []
            continue
        if line.startswith(_DOCUMENT):
            continue
        if layout is None:
            if line.startswith("#") and not _LABEL.fullmatch(re.split(r"[ \t]+", line)[-1]):
                continue
            layout = _Layout(path, _first_sentence(path, number), number, word_column, tag_column)
        columns = layout.split(line)
        if line.startswith("#") and not words and not layout.is_word(columns):
            continue
        if len(columns) != layout.width:
            raise DataError(
                f"{path} line {number}: {len(columns)} columns where the first word's line has "
                f"{layout.width}",
                "correct that line",
            )
        words.append(columns[layout.word])
        tags.append(columns[layout.tag].strip(_BLANK))
        if not words[-1] or not tags[-1]:
            raise DataError(f"{path} line {number}: the word or its label is empty", "correct that line")
    if words:
        yield TaggedExample(tuple(words), tuple(tags))


class _Layout:
    """Separator, number and meaning of the columns, from the first sentence's lines."""

    def __init__(
        self, path: Path, lines: Sequence[str], number: int, word: int | None, tag: int | None
    ) -> None:
        self.tabs = "\t" in lines[0]
        rows = [self.split(line) for line in lines]
        self.width = len(rows[0])
        if self.width < 2:
            raise DataError(
                f"{path} line {number}: expected a word and its label, got {lines[0][:60]!r}",
                "separate them by a tab or a space",
            )
        for index in (word, tag):
            if index is not None and not -self.width <= index < self.width:
                raise DataError(f"{path} has {self.width} columns, so there is no column {index}")
        whole = [row for row in rows if len(row) == self.width]
        numbered = self.width > 2 and [row[0] for row in whole] == [str(i + 1) for i in range(len(whole))]
        two = numbered and self.width == 4 and _are_labels(whole, 2) and _are_labels(whole, 3)
        self.word = (1 if numbered else 0) if word is None else word
        self.tag = (2 if two else -1) if tag is None else tag
        if word is None and tag is None and _are_labels(whole, 0) and not _are_labels(whole, -1):
            raise DataError(
                f"{path} line {number}: the first column looks like labels and the last one does not",
                "say which is which with --word-column and --tag-column, counted from 0",
            )

    def split(self, line: str) -> list[str]:
        """The columns of a line."""
        return line.split("\t") if self.tabs else re.split(r"[ \t]+", line.rstrip(_BLANK))

    def is_word(self, columns: Sequence[str]) -> bool:
        """Whether a line that begins with # is a word with its label, and no comment."""
        return len(columns) == self.width and bool(_LABEL.fullmatch(columns[self.tag].strip(_BLANK)))


def _are_labels(rows: Sequence[Sequence[str]], column: int) -> bool:
    return all(_LABEL.fullmatch(row[column].strip(_BLANK)) for row in rows)


def _first_sentence(path: Path, first: int) -> list[str]:
    """The lines from number `first` to the end of their sentence."""
    lines: list[str] = []
    for number, line in read_text_lines(path):
        if number >= first:
            if not line.strip(_BLANK):
                break
            lines.append(line.rstrip("\r\n"))
    return lines
