"""The arguments of `BertTokenizer`, checked before any text is read."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tfbert_npu.preprocess.host_packing import Padding
from tfbert_npu.preprocess.offsets import Text
from tfbert_npu.preprocess.options import Trimming, one_of

_THEIRS = {
    "max_length": "seq_length=",
    "truncation": "trimming=, and it always happens",
    "return_tensors": "left out: the arrays are numpy's",
    "return_offsets_mapping": "return_offsets=",
    "text": "texts=",
    "text_pair": "text_pairs=",
    "add_special_tokens": "left out: encode() gives ids without them",
}


def mapped(names: Sequence[str]) -> str:
    """What transformers' arguments are called here."""
    meant = [f"{name} is {_THEIRS.get(name, 'unknown')}" for name in names]
    return f"BertTokenizer takes texts, text_pairs, seq_length, padding and trimming; here {', '.join(meant)}"


def checked_texts(texts: Text | Sequence[Text], name: str) -> Sequence[Text]:
    """The texts; one text is a batch of one.

    Raises:
        ValueError: They are none.
    """
    if isinstance(texts, (str, bytes)):
        return [texts]
    if not isinstance(texts, (list, tuple, np.ndarray)):
        raise ValueError(f"{name} must be a text or a sequence of texts, not {type(texts).__name__}")
    for index, text in enumerate(texts):
        if not isinstance(text, (str, bytes)):
            raise ValueError(f"{name}[{index}] must be str or bytes, not {type(text).__name__}")
    return list(texts)


def check_choices(
    seq_length: int,
    special_tokens: int,
    trimming: Trimming,
    padding: Padding,
    pad_to_multiple_of: int | None,
    stride: int | None,
) -> None:
    """Refuse what is out of range.

    Raises:
        ValueError: An argument is.
    """
    one_of(trimming, Trimming, "trimming")
    one_of(padding, Padding, "padding")
    for name, value, least in (
        ("seq_length", seq_length, special_tokens),
        ("pad_to_multiple_of", pad_to_multiple_of, 1),
        ("stride", stride, 0),
    ):
        if value is None and name != "seq_length":
            continue
        if isinstance(value, bool) or not isinstance(value, (int, np.integer)):
            raise ValueError(f"{name} must be an integer, not {value!r}")
        if value < least:
            room = f" to hold {special_tokens} special tokens" if name == "seq_length" else ""
            raise ValueError(f"{name}={value} is too small; it must be at least {least}{room}")
    if pad_to_multiple_of is not None and padding == "fixed":
        raise ValueError(
            "pad_to_multiple_of needs padding='longest'; with padding='fixed' rows have seq_length"
        )
