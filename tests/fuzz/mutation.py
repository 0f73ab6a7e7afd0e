"""Damaged and nasty variants of a file, the same ones for the same seed."""

from __future__ import annotations

import json
import random
from typing import Any

_BYTES = (
    b"",
    b"\0",
    b"\xff",
    b"\n",
    b'"',
    b"{",
    b"[",
    b"\xef\xbb\xbf",
    b"\xed\xa0\x80",
    b"\r\n",
    b"\t",
    b"\\u0000",
)
_SIZES = (0, 1, -1, 255, 256, 2**31 - 1, 2**31, 2**32, 2**63 - 1, 2**63, 2**64 - 1)
_VALUES: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 3, 2**31, 2**63, 10**40, 0.5, -0.0, 1e400, float("nan"), "", "x", "\ud800", "\0",
    "../../etc/passwd", "/dev/zero", "[PAD]", "NFC", "é" * 300, [], {}, [[]], [None], {"": None}, ["a", 1],
    {"type": "Sequence", "normalizers": 3}, {"0": "a", "1": "a"},
)  # fmt: skip


def mutate(seed: bytes, rng: random.Random) -> bytes:
    """One variant of a file."""
    if rng.random() < 0.6:
        try:
            document = json.loads(seed)
        except ValueError:
            pass
        else:
            return _json(document, rng)
    content = bytearray(seed)
    for _ in range(rng.choice((1, 1, 1, 2, 4, 16))):
        _damage(content, rng)
    return bytes(content)


def _damage(content: bytearray, rng: random.Random) -> None:
    at = rng.randrange(len(content) + 1)
    end = min(len(content), at + rng.choice((1, 1, 2, 4, 8, 64, 1024)))
    kind = rng.randrange(8)
    if kind == 0:
        del content[at:]
    elif kind == 1:
        del content[at:end]
    elif kind == 2 and content:
        content[min(at, len(content) - 1)] ^= 1 << rng.randrange(8)
    elif kind == 3:
        content[at:at] = rng.choice(_BYTES)
    elif kind == 4:
        content[at:at] = content[at:end] * rng.choice((1, 2, 50))
    elif kind == 5:
        width = rng.choice((1, 2, 4, 8))
        value = rng.choice(_SIZES) % (1 << (8 * width))
        content[at : at + width] = value.to_bytes(width, rng.choice(("little", "big")))
    elif kind == 6:
        content[at:end] = rng.randbytes(end - at)
    else:
        other = rng.randrange(len(content) + 1)
        content[at:end], content[other:other] = b"", content[at:end]


def _json(document: Any, rng: random.Random) -> bytes:
    for _ in range(rng.choice((1, 1, 2, 5))):
        document = _changed(document, rng, 0)
    if rng.random() < 0.02:
        return b"[" * 100_000
    if rng.random() < 0.02:
        return b'{"a":' * 50_000 + b"1" + b"}" * 50_000
    text = json.dumps(document, ensure_ascii=rng.random() < 0.7)
    return text.encode("utf-8", "surrogatepass")


def _changed(value: Any, rng: random.Random, depth: int) -> Any:
    """The document with one place in it changed."""
    inside = isinstance(value, dict | list) and value
    if not inside or rng.random() < 0.15:
        return rng.choice(_VALUES) if depth or rng.random() < 0.1 else value
    if isinstance(value, dict):
        key = rng.choice(list(value))
        kind = rng.randrange(6)
        if kind == 0:
            return {k: v for k, v in value.items() if k != key}
        if kind == 1:
            return {**value, rng.choice(("", "\0", "x", key + key)): value[key]}
        return {**value, key: _changed(value[key], rng, depth + 1)}
    place = rng.randrange(len(value))
    kind = rng.randrange(6)
    if kind == 0:
        return value[:place] + value[place + 1 :]
    if kind == 1:
        return value + [value[place]] * rng.choice((1, 3))
    return [*value[:place], _changed(value[place], rng, depth + 1), *value[place + 1 :]]
