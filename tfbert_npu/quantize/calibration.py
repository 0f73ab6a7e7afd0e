"""Calibration sets: texts as the model will get them, long and short ones alike."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path

import numpy as np

from tfbert_npu.preprocess import BertTokenizer, Vocabulary
from tfbert_npu.quantize.samples import Inputs

SIZE = 64
"""Texts of a calibration set unless the caller wants another number."""

_MOST_UNKNOWN = 0.5


def default_texts() -> tuple[str, ...]:
    """Our own sentences: questions, news, chat, prose and code, in two dozen languages, short and long."""
    text = (files(__package__) / "calibration.txt").read_text(encoding="utf-8")
    return tuple(text.splitlines())


def read_texts(path: str | os.PathLike[str]) -> tuple[str, ...]:
    """Texts of a UTF-8 file, one per line; empty lines are passed over.

    Raises:
        ValueError: It is not UTF-8.
    """
    try:
        lines = Path(path).read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8 ({error.reason}); convert it, one text per line") from error
    return tuple(line.strip() for line in lines if line.strip())


def calibration_set(
    tokenizer: str | os.PathLike[str],
    texts: Sequence[str],
    shape: tuple[int, int],
    size: int = SIZE,
    seed: int = 0,
    pairs: bool = False,
) -> list[Inputs]:
    """Sample texts evenly over their lengths and make padded batches of them.

    A plain sample of task data holds mostly short texts, and the ranges of the long ones would be missing.
    The texts are therefore sorted by length in tokens and one is drawn from each of `size` equal parts.

    Args:
        tokenizer: Directory with the model's `vocab.txt` or `tokenizer.json`.
        texts: To choose from.
        shape: (batch, length) in production; texts are padded or cut to it as there.
        size: Texts wanted; all are taken if there are no more.
        seed: Of the draw and of the order.
        pairs: Make every row a pair of texts, for a model that reads nothing else; otherwise every eighth
            batch has pairs, so that the second token type is seen.

    Returns:
        Full batches of int32 arrays [B, S] under TF-Hub's input names; texts are repeated to fill the last.

    Raises:
        ValueError: Fewer than two different texts, all longer than the bucket, or of a language that the
            vocabulary does not know.
    """
    if isinstance(texts, str):
        raise ValueError("calibration must be a list of texts, not one string; put it into a list")
    if size < 2:
        raise ValueError(f"size must be at least 2, got {size}")
    unique = list(dict.fromkeys(text.strip() for text in texts if text.strip()))
    if len(unique) < 2:
        raise ValueError(
            f"calibration needs at least two different texts, got {len(unique)}, and {SIZE} for good ranges; "
            "give texts like those that the model will read, or leave calibration out for our own"
        )
    encode = BertTokenizer.from_pretrained(tokenizer)
    batch, length = shape
    # One token more than fits shows which texts are cut.
    longer = encode(unique, seq_length=length + 1)
    lengths = longer["input_mask"].sum(axis=1)
    if np.all(lengths > length):
        raise ValueError(
            f"every calibration text is longer than {length} tokens, so no padding would be seen; "
            "give texts of the lengths that the model will read, or a longer shape"
        )
    _check_language(encode.vocabulary, longer)
    rng = np.random.default_rng(seed)
    by_length = np.argsort(lengths, kind="stable")
    parts = np.array_split(by_length, min(size, len(unique)))
    chosen = [int(rng.choice(part)) for part in parts]
    rng.shuffle(chosen)
    chosen += chosen[: -len(chosen) % batch]
    batches = []
    for first in range(0, len(chosen), batch):
        rows = [unique[index] for index in chosen[first : first + batch]]
        rows += [rows[-1]] * (batch - len(rows))
        seconds = [unique[chosen[(first + row + 1) % len(chosen)]] for row in range(batch)]
        paired = (pairs or (first // batch) % 8 == 7) and encode.takes_pairs
        encoded = encode(rows, seconds if paired else None, seq_length=length)
        batches.append({name: np.ascontiguousarray(value, np.int32) for name, value in encoded.items()})
    return batches


def resized(batches: Sequence[Mapping[str, np.ndarray]], shape: tuple[int, int]) -> list[Inputs]:
    """Batches [B, S] as batches of another shape: rows regrouped, cut or padded with 0."""
    batch, length = shape
    rows = {name: np.concatenate([one[name] for one in batches]) for name in batches[0]}
    count = len(next(iter(rows.values())))
    fitted = {
        name: np.pad(value[:, :length], ((0, -count % batch), (0, max(0, length - value.shape[1]))))
        for name, value in rows.items()
    }
    fitted["input_mask"][count:, 0] = 1  # no row may be all padding
    return [
        {name: value[first : first + batch] for name, value in fitted.items()}
        for first in range(0, count, batch)
    ]


def _check_language(vocabulary: Vocabulary, encoded: Inputs) -> None:
    ids, mask = encoded["input_word_ids"], encoded["input_mask"].astype(bool)
    # [CLS] and [SEP] are always known.
    words = int(mask.sum()) - 2 * len(ids)
    unknown = int(np.count_nonzero(ids[mask] == vocabulary.unk_id))
    if unknown > _MOST_UNKNOWN * max(words, 1):
        raise ValueError(
            f"{unknown} of {words} calibration tokens are not in the vocabulary; "
            "give texts in the language of the model"
        )
