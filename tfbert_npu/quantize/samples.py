"""Inputs for the gate and for calibration: texts through the model's own tokenizer, padded as in use."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from tfbert_npu.config import BertConfig
from tfbert_npu.preprocess import BertTokenizer

Inputs = dict[str, np.ndarray]

TEXTS = (
    "The river had frozen over by the first week of December.",
    "How do I change the battery?",
    "In 1969, after eight years of work and at a cost of some 25 billion dollars, two people walked on the "
    "Moon for a little over two hours, while a third one stayed in orbit and waited for them to come back.",
    "Die Prüfung beginnt um halb neun, und wer zu spät kommt, darf nicht mehr hinein.",
    "人工智能正在改变我们的生活方式。",
    "¿Dónde está la biblioteca más cercana a la estación?",
    "The quick brown fox jumps over the lazy dog, and the dog, who has seen this before, goes back to sleep "
    "without so much as opening an eye; it is, after all, a warm afternoon in late summer, and there will be "
    "other foxes. Towards evening the wind turns, it begins to rain, and both of them run for the same barn, "
    "where they find the farmer's cat already asleep in the only dry corner.",
    "No.",
)
"""Sentences of several lengths and languages, used where the caller gives none."""


def text_inputs(
    tokenizer: Path, texts: Sequence[str], shape: tuple[int, int], runs: int, pairs: bool = False
) -> list[Inputs]:
    """Texts as padded batches of one shape; the last batch holds pairs of texts.

    Args:
        tokenizer: Directory with `vocab.txt`.
        texts: Taken in turn, again from the first when there are fewer than `runs` batches take.
        shape: (batch, length).
        runs: Number of batches.
        pairs: Make every batch of pairs, for a model that reads nothing else.

    Raises:
        ValueError: There is no text.
    """
    if not texts:
        raise ValueError("texts must hold at least one text")
    batch, length = shape
    encode = BertTokenizer.from_pretrained(tokenizer)
    batches = []
    for run in range(runs):
        chosen = [texts[(run * batch + row) % len(texts)] for row in range(batch)]
        seconds = [texts[(run * batch + row + 1) % len(texts)] for row in range(batch)]
        paired = (pairs or run == runs - 1) and encode.takes_pairs
        encoded = encode(chosen, seconds if paired else None, seq_length=length)
        batches.append({name: np.ascontiguousarray(value, np.int32) for name, value in encoded.items()})
    return batches


def with_positions(batches: Sequence[Mapping[str, np.ndarray]], count: int) -> list[Inputs]:
    """The batches with `masked_lm_positions` int32 [B, count], drawn from each row's real tokens."""
    rng = np.random.default_rng(0)
    filled = []
    for batch in batches:
        lengths = np.maximum(batch["input_mask"].sum(axis=1, keepdims=True), 1)
        positions = rng.integers(0, lengths, (len(lengths), count)).astype(np.int32)
        filled.append({**batch, "masked_lm_positions": positions})
    return filled


def without_types(batches: Sequence[Mapping[str, np.ndarray]], config: BertConfig) -> list[Inputs]:
    """The batches for a model that knows one token type, or none: all types 0."""
    if config.type_vocab_size > 1:
        return [dict(batch) for batch in batches]
    return [{**batch, "input_type_ids": np.zeros_like(batch["input_type_ids"])} for batch in batches]
