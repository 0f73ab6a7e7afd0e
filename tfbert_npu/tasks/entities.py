"""`ner`: named entities with their places in the text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tfbert_npu.errors import TaskError
from tfbert_npu.preprocess import BertTokenizer
from tfbert_npu.tasks.loading import asks
from tfbert_npu.tasks.running import (
    as_tokenizer,
    check_labels,
    labels_of,
    length_for,
    listed,
    run,
    scores_of,
    softmax,
)
from tfbert_npu.tasks.schemes import SchemeName, group_entities, recognize_scheme
from tfbert_npu.tasks.words import Word, centre_most, given_words, windows, words_of


@dataclass(frozen=True)
class Entity:
    """A named entity, with the names of transformers' pipeline.

    `start` and `end` are character indices of the text, or word indices where words were given;
    `score` is the mean probability of its words' labels.
    """

    entity_group: str
    word: str
    start: int
    end: int
    score: float

    @property
    def label(self) -> str:
        """`entity_group`, as 0.1 called it."""
        return self.entity_group

    @property
    def text(self) -> str:
        """`word`, as 0.1 called it."""
        return self.word


def tag_words(
    model: Any,
    tokenizer: BertTokenizer,
    sentences: Sequence[Sequence[Word]],
    names: Sequence[str],
    *,
    seq_length: int = 128,
    overlap: int = 32,
    batch_size: int = 32,
) -> list[tuple[list[str], list[float]]]:
    """The label of each word's first piece, and its probability.

    Sentences longer than `seq_length` are cut into windows that overlap; a word takes its label from the
    window in which it stands farthest from an end.
    """
    vocabulary = tokenizer.vocabulary
    room = seq_length - 2
    rows, cuts = [], []
    for words in sentences:
        ranges = windows([min(len(word.ids), room) for word in words], room, min(overlap, room // 2))
        cuts.append(ranges)
        for start, end in ranges:
            pieces = [piece for word in words[start:end] for piece in word.ids[:room]]
            rows.append([vocabulary.cls_id, *pieces, vocabulary.sep_id])
    outputs = run(model, rows, batch_size=batch_size, pad_id=vocabulary.pad_id)
    results = []
    for words, ranges in zip(sentences, cuts, strict=True):
        chosen = centre_most(ranges, len(words))
        tags, scores = ["O"] * len(words), [0.0] * len(words)
        for number, (start, end) in enumerate(ranges):
            logits = scores_of(next(outputs), "logits")
            check_labels(logits.shape[-1], names)
            place = 1
            for item in range(start, end):
                if chosen[item] == number:
                    probabilities = softmax(logits[place])
                    best = int(probabilities.argmax())
                    tags[item], scores[item] = names[best], float(probabilities[best])
                place += min(len(words[item].ids), room)
        results.append((tags, scores))
    return results


def entity_labels_of(model: Any, labels: Sequence[str] | None) -> tuple[str, ...]:
    """The label names of a token classifier: of `LABEL_0` nobody knows which entity it marks.

    Raises:
        TaskError: There are none.
    """
    if labels is None and getattr(getattr(model, "config", None), "id2label", ()) is None:
        raise TaskError(
            f"{getattr(model, 'name', 'the model')} names no labels, so that no entity has a kind",
            "pass labels=, or name them in id2label of its config.json",
        )
    return labels_of(model, labels)


@asks("ner")
def ner(
    model: Any,
    preprocessor: Any,
    texts: str | Sequence[str] | Sequence[Sequence[str]],
    *,
    labels: Sequence[str] | None = None,
    scheme: SchemeName | None = None,
    seq_length: int | None = None,
    batch_size: int = 32,
) -> list[list[Entity]]:
    """Named entities, from the labels of a token classifier.

    Args:
        model: What `load` gave, after which come the texts; or a `BertForTokenClassification`, or a callable
            with such outputs.
        preprocessor: Its `BertPreprocessor` or `BertTokenizer`; of a loaded model left out.
        texts: Texts (one alone is a list of one), or lists of words that were cut already.
        labels: Label names; by default the model's.
        scheme: How labels mark entities; by default recognized from their names (see `schemes`).
        seq_length: Longest sequence in tokens, by default the artifact's longest shape, or 128; longer texts
            are cut into windows that overlap.
        batch_size: Windows per call of the model.

    Returns:
        For each text its entities in order. Of texts, `text[start:end]` is the entity.

    Raises:
        ValueError: The labels follow no known scheme.
    """
    tokenizer = as_tokenizer(preprocessor)
    texts, seq_length = listed(texts), length_for(model, seq_length)
    names = entity_labels_of(model, labels)
    marks = recognize_scheme(names, scheme)
    sentences = [
        words_of(tokenizer, text) if isinstance(text, str) else given_words(tokenizer, text) for text in texts
    ]
    tagged = tag_words(model, tokenizer, sentences, names, seq_length=seq_length, batch_size=batch_size)
    results = []
    for text, words, (tags, scores) in zip(texts, sentences, tagged, strict=True):
        entities = []
        for label, first, end in group_entities(tags, marks):
            start, stop = words[first].start, words[end - 1].end
            found = text[start:stop]
            shown = found if isinstance(found, str) else " ".join(found)
            entities.append(Entity(label, shown, start, stop, float(np.mean(scores[first:end]))))
        results.append(entities)
    return results
