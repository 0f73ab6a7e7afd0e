"""`fill_mask`: the words that a masked language model puts in the place of [MASK]."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tfbert_npu.preprocess import BertTokenizer
from tfbert_npu.tasks.running import Outputs, as_tokenizer, length_for, listed, run, softmax

MASK = "[MASK]"


@dataclass(frozen=True)
class Filling:
    """A word piece for one [MASK] and its probability."""

    token: str
    token_id: int
    score: float


def fill_mask(
    model: Any,
    preprocessor: Any,
    texts: str | Sequence[str],
    *,
    top_k: int = 5,
    seq_length: int | None = None,
    batch_size: int = 32,
) -> list[list[list[Filling]]]:
    """The most probable word pieces at every `[MASK]`.

    Args:
        model: A `BertForMaskedLM` or `BertForPreTraining`, or a callable with such outputs.
        preprocessor: Its `BertPreprocessor` or `BertTokenizer`.
        texts: Texts (one alone is a list of one), each with one `[MASK]` or more; several are filled
            independently of each other.
        top_k: How many pieces per mask.
        seq_length: Longest sequence in tokens; by default the artifact's longest shape, or 128.
        batch_size: Texts per call of the model.

    Returns:
        For each text, for each of its masks, `top_k` fillings, the best first.

    Raises:
        ValueError: A text has no `[MASK]`, or has one beyond `seq_length`.
    """
    tokenizer = as_tokenizer(preprocessor)
    texts, seq_length = listed(texts), length_for(model, seq_length)
    if MASK not in tokenizer.options.allow_special_tokens:
        allowed = tokenizer.options.allow_special_tokens | {MASK}
        tokenizer = BertTokenizer(
            tokenizer.vocabulary, dataclasses.replace(tokenizer.options, allow_special_tokens=allowed)
        )
    vocabulary = tokenizer.vocabulary
    rows, places = [], []
    for index, text in enumerate(texts):
        ids = tokenizer.encode(text)
        row = [vocabulary.cls_id, *ids[: seq_length - 2], vocabulary.sep_id]
        masks = [place for place, word in enumerate(row) if word == vocabulary.mask_id]
        if len(masks) < max(1, ids.count(vocabulary.mask_id)):
            where = f"within its first {seq_length - 2} tokens" if vocabulary.mask_id in ids else "in it"
            raise ValueError(f"texts[{index}] has no [MASK] {where}; put one where the word is missing")
        rows.append(row)
        places.append(masks)

    def at_masks(row: int, output: Outputs) -> Outputs:
        logits = output["mlm_logits"] if "mlm_logits" in output else output["logits"]
        return {"logits": logits[places[row]]}  # a copy, so that the batch's can go

    outputs = run(model, rows, batch_size=batch_size, pad_id=vocabulary.pad_id, keep=at_masks)
    return [[_best(scores, vocabulary.tokens, top_k) for scores in output["logits"]] for output in outputs]


def _best(logits: np.ndarray, tokens: Sequence[str], top_k: int) -> list[Filling]:
    scores = softmax(logits)
    best = np.argsort(-scores, kind="stable")[:top_k]
    return [Filling(tokens[index], int(index), float(scores[index])) for index in best]
