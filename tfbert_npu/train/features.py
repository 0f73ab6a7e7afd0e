"""Examples as the numbers a head is trained on: word ids, labels, and their places.

A *feature* is a row of a batch before padding: its inputs and labels by name, as lists of integers, numbers
or (for choices) lists of lists. Its inputs leave out `input_mask`, which is 1 at every place that a feature
has.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tfbert_npu.preprocess import BertTokenizer
from tfbert_npu.tasks.answers import Window, question_windows
from tfbert_npu.tasks.examples import ChoiceExample, QuestionExample, TaggedExample, TextExample
from tfbert_npu.tasks.words import given_words, windows

IGNORED = -100
"""Label that losses leave out, as in PyTorch."""


@dataclass(frozen=True)
class Feature:
    """One row: word ids, token types, and its label.

    `ids` and `types` are lists of int, or lists of such lists for choices. `label` is an int, a float, a
    list as long as `ids` (token labels), a tuple (multi label), or a dict of ints by output.
    """

    ids: Any
    types: Any
    label: Any

    @property
    def length(self) -> int:
        """Number of tokens; the longest choice's."""
        if self.ids and isinstance(self.ids[0], list):
            return max(map(len, self.ids))
        return len(self.ids)


def pack(
    tokenizer: BertTokenizer, text: str, pair: str | None, seq_length: int
) -> tuple[list[int], list[int]]:
    """`[CLS] text [SEP]` or `[CLS] text [SEP] pair [SEP]` without padding, and its token types."""
    packed = tokenizer([text], None if pair is None else [pair], seq_length)
    length = int(packed["input_mask"].sum())
    return packed["input_word_ids"][0, :length].tolist(), packed["input_type_ids"][0, :length].tolist()


def text_feature(
    tokenizer: BertTokenizer, example: TextExample, label2id: Mapping[str, int] | None, seq_length: int
) -> Feature:
    """A text or a pair with its class, its classes (0.0 or 1.0 for each), or its number.

    Raises:
        ValueError: The label is none of `label2id`.
    """
    ids, types = pack(tokenizer, example.text, example.pair, seq_length)
    label: Any = example.label
    if isinstance(label, str):
        label = class_index(label, label2id or {}, example.text)
    elif isinstance(label, tuple):
        chosen = {class_index(name, label2id or {}, example.text) for name in label}
        label = tuple(float(index in chosen) for index in range(len(label2id or {})))
    return Feature(ids, types, label)


def class_index(name: str, label2id: Mapping[str, int], where: str) -> int:
    """The number of a label.

    Raises:
        ValueError: It is none of the labels.
    """
    if name not in label2id:
        known = ", ".join(list(label2id)[:8]) + (", ..." if len(label2id) > 8 else "")
        raise ValueError(
            f"the label {name!r} of {where[:60]!r} is none of the {len(label2id)} labels ({known})"
        )
    return label2id[name]


def choice_feature(tokenizer: BertTokenizer, example: ChoiceExample, seq_length: int) -> Feature:
    """The text paired with each choice; the label is the index of the right one."""
    packed = [pack(tokenizer, example.text, choice, seq_length) for choice in example.choices]
    return Feature([ids for ids, _ in packed], [types for _, types in packed], example.label)


def tagged_features(
    tokenizer: BertTokenizer, example: TaggedExample, label2id: Mapping[str, int], seq_length: int
) -> Iterator[Feature]:
    """A sentence, in as many rows as it needs; the first piece of each word has the word's label.

    Raises:
        ValueError: A tag is none of `label2id`, or there is not one for each word.
    """
    if len(example.words) != len(example.tags):
        raise ValueError(f"{len(example.words)} words but {len(example.tags)} tags; give one tag per word")
    vocabulary = tokenizer.vocabulary
    room = seq_length - 2
    words = given_words(tokenizer, example.words)
    for start, end in windows([min(len(word.ids), room) for word in words], room):
        ids, labels = [vocabulary.cls_id], [IGNORED]
        for word, tag in zip(words[start:end], example.tags[start:end], strict=True):
            pieces = word.ids[:room]
            ids += pieces
            labels.append(class_index(tag, label2id, " ".join(example.words)))
            labels += [IGNORED] * (len(pieces) - 1)
        ids.append(vocabulary.sep_id)
        labels.append(IGNORED)
        yield Feature(ids, [0] * len(ids), labels)


def question_features(
    tokenizer: BertTokenizer, example: QuestionExample, seq_length: int, stride: int
) -> Iterator[Feature]:
    """The windows of a question; a window without the whole answer is labeled with `[CLS]`, place 0."""
    for window in question_windows(
        tokenizer, example.question, example.context, seq_length=seq_length, stride=stride
    ):
        first, last = answer_places(window, example.answers[:1])
        yield Feature(window.ids, window.types, {"start_logits": first, "end_logits": last})


def answer_places(window: Window, answers: Sequence[tuple[str, int]]) -> tuple[int, int]:
    """Positions of an answer's first and last piece, or 0 and 0 where the window does not hold all of it."""
    for text, start in answers:
        end = start + len(text)
        touched = [index for index, word in enumerate(window.words) if word.start < end and start < word.end]
        if not touched:
            continue
        complete = window.words[touched[0]].start <= start or touched[0] > 0
        complete &= window.words[touched[-1]].end >= end or touched[-1] < len(window.words) - 1
        if complete:
            return window.places[touched[0]][0], window.places[touched[-1]][1]
    return 0, 0
