"""Google's tokenizer, written again from its published algorithm, to compare against.

BasicTokenizer and WordpieceTokenizer of tokenization.py in google-research/bert (Apache-2.0). It works
word by word and scan by scan as the original does, and shares no code with the package.
"""

from __future__ import annotations

import unicodedata

CJK = [
    (0x4E00, 0x9FFF),
    (0x3400, 0x4DBF),
    (0x20000, 0x2A6DF),
    (0x2A700, 0x2B73F),
    (0x2B740, 0x2B81F),
    (0x2B820, 0x2CEAF),
    (0xF900, 0xFAFF),
    (0x2F800, 0x2FA1F),
]
ASCII_PUNCTUATION = set("!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~")


def basic_tokens(text: str | bytes, lower_case: bool = True) -> list[str]:
    if isinstance(text, bytes):
        text = text.decode("utf-8", "ignore")
    cleaned = ""
    for char in text:
        category = unicodedata.category(char)
        if char in " \t\n\r" or category == "Zs":
            cleaned += " "
        elif char not in "\0\ufffd" and category not in ("Cc", "Cf"):
            cleaned += f" {char} " if any(low <= ord(char) <= high for low, high in CJK) else char
    words = []
    for word in cleaned.split():
        if lower_case:
            word = unicodedata.normalize("NFD", word.lower())
            word = "".join(char for char in word if unicodedata.category(char) != "Mn")
        current = ""
        for char in word:
            if char in ASCII_PUNCTUATION or unicodedata.category(char)[0] == "P":
                words += [current, char]
                current = ""
            else:
                current += char
        words.append(current)
    return " ".join(words).split()


def word_pieces(word: str, vocabulary: dict[str, int]) -> list[str]:
    if len(word) > 200:
        return ["[UNK]"]
    pieces, start = [], 0
    while start < len(word):
        for end in range(len(word), start, -1):
            piece = ("##" if start else "") + word[start:end]
            if piece in vocabulary:
                pieces.append(piece)
                start = end
                break
        else:
            return ["[UNK]"]
    return pieces


def token_ids(text: str | bytes, vocabulary: dict[str, int], lower_case: bool = True) -> list[int]:
    words = basic_tokens(text, lower_case)
    return [vocabulary[piece] for word in words for piece in word_pieces(word, vocabulary)]
