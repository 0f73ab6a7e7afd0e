"""Pairs of segments for next sentence prediction (Devlin et al. 2018, section 3.1 and appendix A.2).

Contract: google-research/bert, create_pretraining_data.py, `create_instances_from_document` and
`truncate_seq_pair`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import NamedTuple

import numpy as np

Document = Sequence[Sequence[int]]
"""Word ids by sentence, no sentence empty."""

DOCUMENT_BUFFER = 10_000
"""Documents among which a segment that does not follow is drawn."""


class SegmentPair(NamedTuple):
    """Two segments of word ids, without special tokens, and whether the second one is random."""

    first: list[int]
    second: list[int]
    is_random: bool


def segment_pairs(
    documents: Iterable[Document],
    room: int,
    random: np.random.Generator,
    *,
    short_seq_prob: float = 0.1,
    random_rate: float = 0.5,
    buffer_size: int = DOCUMENT_BUFFER,
) -> Iterator[SegmentPair]:
    """Cut documents into chunks of sentences that fill `room`, and each chunk into two segments.

    The first segment is the beginning of a chunk, up to a sentence drawn at random. The second one is the
    rest of the chunk or, at `random_rate`, as many sentences from a random place of another document; the
    rest of the chunk then begins the next one. A chunk of a single sentence always gets a random second
    segment. What is longer than `room` loses a token of the longer segment at a time, from its front or its
    back as chance has it.

    Args:
        documents: Read as a stream, `buffer_size` of them at a time.
        room: Most tokens of both segments together; a row's length without its special tokens.
        random: Source of all draws; one of the same state gives the same pairs.
        short_seq_prob: Share of chunks whose length is drawn from 2 to `room` instead, so that a model that
            learns from full rows knows short ones.
        random_rate: Share of random second segments where there is a choice.
        buffer_size: Documents held in memory, at least 2. The other document comes from among them.

    Raises:
        ValueError: `room` or `buffer_size` is below 2, or there is but one document.
    """
    if room < 2 or buffer_size < 2:
        raise ValueError(
            f"room and buffer_size must be at least 2, for two segments of two documents, got {room} and "
            f"{buffer_size}"
        )
    stream = (document for document in documents if document)
    before: list[Document] = []
    while buffer := list(islice(stream, buffer_size)):
        # The last document of a stream may be alone.
        buffer, begin = (buffer, 0) if len(buffer) > 1 else (before + buffer, len(before))
        if len(buffer) < 2:
            raise ValueError("next sentence prediction needs two documents or more, separated by empty lines")
        for index in range(begin, len(buffer)):
            yield from _pairs_of(buffer, index, room, random, short_seq_prob, random_rate)
        before = buffer


def _pairs_of(
    documents: Sequence[Document],
    index: int,
    room: int,
    random: np.random.Generator,
    short_seq_prob: float,
    random_rate: float,
) -> Iterator[SegmentPair]:
    document = documents[index]
    begin = 0
    while begin < len(document):
        target = int(random.integers(2, room + 1)) if random.random() < short_seq_prob else room
        end = _filled(document, begin, target)
        cut = begin + 1 if end - begin < 2 else int(random.integers(begin + 1, end))
        first = _joined(document[begin:cut])
        is_random = cut == end or random.random() < random_rate
        if is_random:
            other = int(random.integers(len(documents) - 1))
            elsewhere = documents[other + (other >= index)]
            start = int(random.integers(len(elsewhere)))
            second = _joined(elsewhere[start : _filled(elsewhere, start, target - len(first))])
            end = cut
        else:
            second = _joined(document[cut:end])
        _truncate(first, second, room, random)
        yield SegmentPair(first, second, is_random)
        begin = end


def _filled(document: Document, begin: int, target: int) -> int:
    """The end of the sentences from `begin` on, one at least, that reach `target` tokens."""
    length = 0
    for end in range(begin, len(document)):
        length += len(document[end])
        if length >= target:
            return end + 1
    return len(document)


def _joined(sentences: Document) -> list[int]:
    return [token for sentence in sentences for token in sentence]


def _truncate(first: list[int], second: list[int], room: int, random: np.random.Generator) -> None:
    while len(first) + len(second) > room:
        longer = first if len(first) > len(second) else second
        longer.pop(0 if random.random() < 0.5 else -1)
