"""Raw text as what a pre-training reads: rows of whole lines, or pairs of segments."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, count, islice
from pathlib import Path

import numpy as np

from tfbert_npu.preprocess import BertTokenizer
from tfbert_npu.tasks.readers import read_lines
from tfbert_npu.train.batches import Batches, BatchOptions
from tfbert_npu.train.features import Feature
from tfbert_npu.train.next_sentence import Document, segment_pairs


@dataclass(frozen=True)
class TextOptions:
    """The text of a pre-training: a sentence per line, an empty line between documents.

    Attributes:
        train: Training text.
        dev: Held-out text, for perplexity.
        next_sentence: Learn next sentence prediction as well.
        short_seq_prob: With it, share of pairs that aim at a shorter row than `seq_length`.
        mask_rate: Part of the pieces to mask.
        whole_words: Mask all pieces of a word or none.
        cache: Keep word ids in memory instead of making them again in every epoch.
        seed: Of masks and pairs.
    """

    train: Path
    dev: Path | None = None
    next_sentence: bool = False
    short_seq_prob: float = 0.1
    mask_rate: float = 0.15
    whole_words: bool = False
    cache: bool = True
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("short_seq_prob", "mask_rate"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} must be in [0, 1], got {getattr(self, name)}")


def documents_of(path: Path) -> Iterator[list[str]]:
    """The documents of a text, each a list of its lines."""
    lines: list[str] = []
    for example in read_lines(path):
        if example.text:
            lines.append(example.text)
        elif lines:
            yield lines
            lines = []
    if lines:
        yield lines


def text_rows(
    tokenizer: BertTokenizer, documents: Iterable[Sequence[str]], seq_length: int
) -> Iterator[Feature]:
    """Rows of as many whole lines of a document as fit; a longer line takes several rows."""
    vocabulary, room = tokenizer.vocabulary, seq_length - 2

    def row(pieces: list[int]) -> Feature:
        ids = [vocabulary.cls_id, *pieces, vocabulary.sep_id]
        return Feature(ids, [0] * len(ids), 0)

    for lines in documents:
        kept: list[int] = []
        for line in lines:
            pieces = tokenizer.encode(line)
            if kept and len(kept) + len(pieces) > room:
                yield row(kept)
                kept = []
            kept += pieces
            while len(kept) > room:
                yield row(kept[:room])
                kept = kept[room:]
        if kept:
            yield row(kept)


class NextSentenceBatches(Batches):
    """Batches of segment pairs, drawn again for every epoch; see `next_sentence.segment_pairs`.

    How many pairs the text gives depends on the draws. Every epoch has as many as the first: one that has
    fewer goes on with another draw.

    Args:
        tokenizer: Makes word ids.
        documents: Gives a new iterator over all documents, lists of sentences, at every call.
        options: See `BatchOptions`.
        short_seq_prob: Share of pairs that aim at a shorter row than `seq_length`.
        cache: Keep word ids in memory; without it the text is read again in every epoch.

    Raises:
        ValueError: There are fewer than two documents.
    """

    def __init__(
        self,
        tokenizer: BertTokenizer,
        documents: Callable[[], Iterable[Sequence[str]]],
        options: BatchOptions,
        *,
        short_seq_prob: float = 0.1,
        cache: bool = True,
    ) -> None:
        self._vocabulary, self._short_seq_prob = tokenizer.vocabulary, short_seq_prob

        def word_ids() -> Iterator[Document]:
            for lines in documents():
                yield [ids for line in lines if (ids := tokenizer.encode(line))]

        kept = list(word_ids()) if cache else None
        self._documents = word_ids if kept is None else lambda: kept
        super().__init__(lambda: (), options, pad_id=tokenizer.vocabulary.pad_id, cache=False)

    def features_of(self, epoch: int) -> Iterator[Feature]:
        """The epoch's pairs; label 0 where the second segment follows the first."""
        if not self.rows:  # they are being counted
            return self._draw(0, 0)
        return islice(chain.from_iterable(self._draw(epoch, again) for again in count()), self.rows)

    def _draw(self, epoch: int, again: int) -> Iterator[Feature]:
        cls, sep = self._vocabulary.cls_id, self._vocabulary.sep_id
        pairs = segment_pairs(
            self._documents(),
            self.options.seq_length - 3,
            np.random.default_rng([self.options.seed, epoch, again]),
            short_seq_prob=self._short_seq_prob,
        )
        for first, second, is_random in pairs:
            ids = [cls, *first, sep, *second, sep]
            yield Feature(ids, [0] * (len(first) + 2) + [1] * (len(second) + 1), int(is_random))


def text_batches(tokenizer: BertTokenizer, text: TextOptions, path: Path, options: BatchOptions) -> Batches:
    """The batches of a raw text: rows of whole lines, or segment pairs if `text.next_sentence`."""
    if text.next_sentence:
        return NextSentenceBatches(
            tokenizer,
            lambda: documents_of(path),
            options,
            short_seq_prob=text.short_seq_prob,
            cache=text.cache,
        )
    return Batches(
        lambda: text_rows(tokenizer, documents_of(path), options.seq_length),
        options,
        pad_id=tokenizer.vocabulary.pad_id,
        cache=text.cache,
    )
