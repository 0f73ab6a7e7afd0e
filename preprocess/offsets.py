"""Bytes and characters of a text: where one is in terms of the other."""

from __future__ import annotations

import codecs
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

Text = str | bytes

_WINDOW = 4096  # bytes decoded at a time, since each error costs a copy of them


def byte_offsets_to_characters(text: Text, offsets: np.ndarray | Sequence[Any]) -> np.ndarray:
    """Offsets in bytes of a text's UTF-8 form as offsets in its characters.

    Args:
        text: The text that was tokenized. Each byte sequence that is not UTF-8 counts as one character, as
            in `text.decode("utf-8", "replace")`.
        offsets: Byte offsets on character boundaries, of any shape.

    Returns:
        int64, of the shape of `offsets`.

    Raises:
        ValueError: An offset is not on a character boundary.
    """
    positions = byte_positions(text, as_str(text))
    offsets = np.asarray(offsets, np.int64)
    found = np.searchsorted(positions, offsets)
    if (np.asarray(positions)[np.minimum(found, len(positions) - 1)] != offsets).any():
        raise ValueError(
            "an offset is not on a character boundary of the text; are these offsets of another text?"
        )
    return found


def as_str(text: Text) -> str:
    """The text as `str`, U+FFFD for bytes that are not UTF-8."""
    return text.decode("utf-8", "replace") if isinstance(text, bytes) else text


def byte_positions(text: Text, decoded: str) -> np.ndarray:
    """Where each character of `decoded` starts in the bytes of `text`, and where the last one ends."""
    if isinstance(text, bytes) and "\ufffd" in decoded:
        # A replacement character may stand for one to three bytes: ask the decoder which.
        lengths = [len(char.encode()) for char in decoded]
        replaced = _replaced_lengths(text)
        for index, char in enumerate(decoded):
            if char == "\ufffd":
                lengths[index] = next(replaced)
    else:
        lengths = [len(char.encode("utf-8", "surrogatepass")) for char in decoded]
    return np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)]).astype(np.int64)


def _replaced_lengths(data: bytes) -> Iterator[int]:
    """Bytes behind each U+FFFD of `data.decode("utf-8", "replace")`."""
    at = 0
    while at < len(data):
        window = data[at : at + _WINDOW]
        width = 0
        try:
            valid = codecs.utf_8_decode(window, "strict", at + _WINDOW >= len(data))[1]
        except UnicodeDecodeError as error:
            valid, width = error.start, error.end - error.start
        yield from [3] * window[:valid].count(b"\xef\xbf\xbd")
        if width:
            yield width
        at += valid + width
