"""`fill_mask`: the words that a masked language model puts in the place of [MASK]."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tfbert_npu.preprocess import BertTokenizer
from tfbert_npu.runtime.model import NpuModel
from tfbert_npu.tasks.loading import asks
from tfbert_npu.tasks.running import Outputs, as_tokenizer, length_for, listed, run, scores_of, softmax

MASK = "[MASK]"


@dataclass(frozen=True)
class Filling:
    """A word piece for one [MASK], with the names of transformers' pipeline."""

    sequence: str
    """The text with the piece in its place; with several masks, the others and the special tokens stay."""
    score: float
    """The piece's probability."""
    token: int
    """Its id."""
    token_str: str

    @property
    def token_id(self) -> int:
        """`token`, as 0.1 called it."""
        return self.token


@asks("fill-mask")
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
        model: What `load` gave, after which come the texts; or a `BertForMaskedLM` or `BertForPreTraining`,
            or a callable with such outputs.
        preprocessor: Its `BertPreprocessor` or `BertTokenizer`; of a loaded model left out.
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

    # An artifact may have been compiled to give scores at some positions only.
    positions = places if isinstance(getattr(model, "npu", None) or model, NpuModel) else None

    def at_masks(row: int, output: Outputs) -> Outputs:
        logits = scores_of(output, "mlm_logits", "logits")
        # A copy, so that the batch's can go.
        return {"logits": logits[places[row] if positions is None else range(len(places[row]))]}

    outputs = run(
        model, rows, batch_size=batch_size, pad_id=vocabulary.pad_id, positions=positions, keep=at_masks
    )
    return [
        [
            _best(tokenizer, row, place, scores, top_k)
            for place, scores in zip(own, found["logits"], strict=True)
        ]
        for row, own, found in zip(rows, places, outputs, strict=True)
    ]


def _best(
    tokenizer: BertTokenizer, row: Sequence[int], place: int, logits: np.ndarray, top_k: int
) -> list[Filling]:
    scores, vocabulary = softmax(logits), tokenizer.vocabulary
    single = list(row).count(vocabulary.mask_id) == 1
    best = [int(index) for index in np.argsort(-scores, kind="stable")[:top_k]]
    return [
        Filling(
            tokenizer.decode([*row[:place], index, *row[place + 1 :]], skip_special_tokens=single),
            float(scores[index]),
            index,
            vocabulary.tokens[index],
        )
        for index in best
    ]
