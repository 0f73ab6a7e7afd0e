"""Options that depend on how much data there is, and warnings about data that will not do."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import islice
from typing import Any, Literal

from tfbert_npu.preprocess import BertTokenizer
from tfbert_npu.tasks.examples import ChoiceExample, SimilarExample, TextExample

Choosable = Literal["batch_size", "epochs", "learning_rate"]

FEW_ROWS = 5000
_FEW_UPDATES, _FEW_OF_A_CLASS = 100, 8
LOOKED_AT = 2000
"""Texts whose lengths are looked at."""


def options_for(rows: int, hidden_size: int) -> dict[str, Any]:
    """Batch size, epochs and learning rate for so many rows.

    With 300 rows of 10 classes on MiniLM, BERT's usual 3 epochs of batch 32 at 5e-5 are 27 updates and gave
    an accuracy of 0.547; what is chosen here gave 0.933. Wider models diverge at 2e-4.
    """
    if rows >= FEW_ROWS:
        return {"batch_size": 32, "epochs": 3, "learning_rate": 5e-5}
    epochs = min(10, max(3, math.ceil(FEW_ROWS / max(rows, 1))))
    return {"batch_size": 16, "epochs": epochs, "learning_rate": 2e-4 if hidden_size <= 512 else 5e-5}


def few(updates: int, labels: Mapping[str, int]) -> list[str]:
    """What is too little: updates, or examples of a class; `labels` counts the latter."""
    found = []
    if updates < _FEW_UPDATES:
        found.append(
            f"the training makes only {updates} updates of the weights; give more epochs, a smaller batch "
            "size, or more data"
        )
    rare = [name for name, count in labels.items() if count < _FEW_OF_A_CLASS]
    if rare:
        found.append(
            f"{len(rare)} of {len(labels)} classes have fewer than {_FEW_OF_A_CLASS} training examples "
            f"({', '.join(rare[:5])}{', ...' if len(rare) > 5 else ''}); expect little of them"
        )
    return found


def text_lengths(tokenizer: BertTokenizer, examples: Iterable[Any]) -> list[int]:
    """Tokens of the first 2000 texts; none where long ones are cut into windows and nothing is lost."""
    found = (max(_lengths(tokenizer, example), default=0) for example in islice(examples, LOOKED_AT))
    return [length for length in found if length]


def cut_texts(lengths: Sequence[int], seq_length: int) -> list[str]:
    """One sentence where more than 1 % of the texts are longer than `seq_length` tokens."""
    cut = sum(length > seq_length for length in lengths)
    if cut <= 0.01 * len(lengths):
        return []
    return [
        f"{cut} of {len(lengths)} texts are longer than {seq_length} tokens (up to {max(lengths)}) and are "
        "cut; give a larger --seq-length"
    ]


def _lengths(tokenizer: BertTokenizer, example: Any) -> Iterable[int]:
    if isinstance(example, SimilarExample):
        yield from (len(tokenizer.encode(text)) + 2 for text in example.texts)
        return
    if isinstance(example, TextExample):
        pairs: Collection[str | None] = (example.pair,)
    elif isinstance(example, ChoiceExample):
        pairs = example.choices
    else:
        return  # others are cut into windows, and nothing is lost
    first = len(tokenizer.encode(example.text))
    for pair in pairs:
        yield first + 2 if pair is None else first + len(tokenizer.encode(pair)) + 3
