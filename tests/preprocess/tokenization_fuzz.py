"""Random texts that dwell on what tokenizers get wrong, and random vocabularies that can tell."""

from __future__ import annotations

import random
import sys
import unicodedata
from collections.abc import Iterator

SPECIAL_TOKENS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]

_WORDS = [
    "the",
    "Straße",
    "ΣΊΣΥΦΟΣ",
    "ΑΣ",
    "Σ",
    "naïve",
    "Ünïcödé",
    "cafe\u0301",
    "İstanbul",
    "ǅ",
    "ﬁ",
    "Ⅳ",
    "½",
]
_WORDS += ["한국어", "\u1100\u1161\u11a8", "हिन्दी", "ไทย", "東京", "テスト", "か\u3099"]
_WORDS += [
    "[CLS]",
    "[SEP]",
    "[MASK]",
    "[UNK]",
    "##ing",
    "don't",
    "U.S.A.",
    "a" * 199,
    "b" * 200,
    "c" * 201,
    "é" * 201,
]
_ODD = "\0\ufffd\t\n\r\x0b\x0c\x1c\x1f\x7f\x85\xa0\xad\u034f\u037e\u1680\u180e\u2000\u200b\u200d\u2028\u2029"
_ODD += (
    "\u202f\u205f\u2060\u3000\ufeff\ufffe\uffff\u0378\ue000\U000e0001\U000f0000\U0010ffff\u1fef\u0345\u02b0"
)
_ODD += (
    "\u302e\u302f\U0001d15e\U0001d165\U0001d16d\u0301\u0323\u0f71\u0f72\u1b44\u09c7\u09be\u1100\u1161\u11a8"
)
_ODD += (
    "ΣσςϹ\u2126\u212a\u212b\u0130ıſẞß'’·.:,-_~^`$+<=>|。，！“”—…€©😀👩🇩𝔸中\uf900\U0002f800\u1b4e\U00010d6e"
)
_BLOCKS = [
    (0x20, 0x7F),
    (0xA0, 0x250), (0x300, 0x370), (0x370, 0x400), (0x400, 0x530), (0x590, 0x700), (0x900, 0xE00),
    (0xE00, 0x1000), (0x1100, 0x1200), (0x1E00, 0x2000), (0x2000, 0x2C00), (0x3000, 0x3400), (0x4DB0, 0x4E10),
    (0xAC00, 0xD7A4), (0xE000, 0xE010), (0xF900, 0xFB50), (0xFE00, 0x10000), (0x10000, 0x12000),
    (0x1D000, 0x1D250), (0x1F300, 0x1F700), (0x2F800, 0x2FA20), (0, 0xD800), (0xE000, 0x110000),
]  # fmt: skip


def random_text(random_: random.Random) -> str:
    pieces = []
    for _ in range(random_.randrange(12)):
        kind = random_.random()
        if kind < 0.3:
            pieces.append(random_.choice(_WORDS))
        elif kind < 0.5:
            pieces.append("".join(random_.choices(_ODD, k=random_.randrange(1, 5))))
        elif kind < 0.6:
            pieces.append("".join(random_.choices("abcABC.,!' ", k=random_.randrange(1, 20))))
        elif kind < 0.9:
            low, high = random_.choice(_BLOCKS)
            pieces.append("".join(chr(random_.randrange(low, high)) for _ in range(random_.randrange(1, 8))))
        else:
            pieces.append(" " * random_.randrange(3))
    separator = random_.choice(["", " "])
    return separator.join(pieces)


def random_bytes(random_: random.Random) -> bytes:
    """A text, one time in eight with bytes that are not UTF-8."""
    data = bytearray(random_text(random_).encode())
    if random_.random() < 0.125:
        for _ in range(random_.randrange(1, 5)):
            at = random_.randrange(len(data) + 1)
            if random_.random() < 0.5:
                data[at:at] = random_.choice(
                    [b"\xff", b"\xc0\x80", b"\xe2\x82", b"\xed\xa0\x80", b"\xf0\x9f", b"\x80"]
                )
            else:
                del data[at : at + 1]
    return bytes(data)


def every_character() -> Iterator[str]:
    """Each code point, amid letters and alone; of surrogates none, of planes without characters a 61st."""
    for point in range(sys.maxunicode + 1):
        assigned = point >> 16 in (0, 1, 2, 3, 14)
        if not 0xD800 <= point < 0xE000 and (assigned or point % 61 == 0 or point & 0xFFFE == 0xFFFE):
            yield f"a{chr(point)}a {chr(point)}"


def telling_vocabulary() -> list[str]:
    """One piece for nearly every character that a rule could leave, so that differences show as ids."""
    chars = [
        chr(p) for p in range(sys.maxunicode + 1) if unicodedata.category(chr(p)) not in ("Cn", "Co", "Cs")
    ]
    chars = [char for char in chars if not char.isspace() and ord(char) < 0x3400] + [*"中東京日\uf900"]
    chars += [chr(p) for p in range(0xA000, 0xAC00)] + [
        *"ᄀ",
        "\u1161",
        "\u11a8",
        "\ufb01",
        "\U0001d165",
        "\U0001d15e",
    ]
    chars += ["\u1b4e", "\U00010d6e", "\U0001f600", "\ue000", "\U000f0000", "\U000f0001", "\u0378"]
    chars = list(dict.fromkeys(chars))
    return (
        SPECIAL_TOKENS + chars + [f"##{char}" for char in chars if char != "#"] + ["##aa", "the", "##e\u0301"]
    )
