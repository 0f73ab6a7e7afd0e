"""What one line, sentence or question of a data file says, before it becomes numbers."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class TextExample:
    """A text or a pair of texts. `label`: a class name, several of them, or a number (regression)."""

    text: str
    pair: str | None = None
    label: str | tuple[str, ...] | float | None = None


@dataclass(frozen=True)
class SimilarExample:
    """Two texts that belong together, with a third that does not; or two and the cosine they should have."""

    texts: tuple[str, ...]
    score: float | None = None


@dataclass(frozen=True)
class ChoiceExample:
    """A text and what may go with it. `label`: index of the right choice."""

    text: str
    choices: tuple[str, ...]
    label: int | None = None


@dataclass(frozen=True)
class TaggedExample:
    """The words of a sentence and a tag for each."""

    words: tuple[str, ...]
    tags: tuple[str, ...]


@dataclass(frozen=True)
class QuestionExample:
    """A question to a context.

    `answers` holds texts and the indices of their first characters in the context; it is empty where the
    context does not answer the question. `group` names the article, which a split must not divide.
    """

    id: str
    question: str
    context: str
    answers: tuple[tuple[str, int], ...] = ()
    group: str = ""


Example = TextExample | SimilarExample | ChoiceExample | TaggedExample | QuestionExample
