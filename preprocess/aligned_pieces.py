"""Word pieces together with what they stand for in the text, remembered for each chunk of raw text."""

from __future__ import annotations

import re
from typing import NamedTuple

from tfbert_npu.preprocess.alignment import Aligner
from tfbert_npu.preprocess.characters import CJK_RANGES
from tfbert_npu.preprocess.options import TextOptions
from tfbert_npu.preprocess.vocabulary import SUFFIX_INDICATOR, Vocabulary
from tfbert_npu.preprocess.wordpiece import Memory, WordPieces

# What `characters.is_space` holds for and `is_removed` does not: a word never goes past one of these.
SPACES = "\t\n\r \xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000"
_CJK = "".join(f"{chr(first)}-{chr(last)}" for first, last in CJK_RANGES)


class Pieces(NamedTuple):
    """Word pieces of a chunk.

    Attributes:
        ids: Their ids.
        offsets: For each, (start, end) in the chunk.
    """

    ids: tuple[int, ...]
    offsets: tuple[tuple[int, int], ...]


class AlignedPieces(Memory[Pieces]):
    """Pieces of a chunk of raw text with their offsets: `pieces[chunk]`.

    No rule of dialect `"bert"` looks past white space or an ideograph that is a word of its own, so that
    a chunk between two of them has the same pieces wherever it stands; `chunks` cuts there.

    Args:
        vocabulary: The word pieces.
        words: Ids of the pieces of a word.
        options: Switches; the dialect is `"bert"`.
    """

    def __init__(self, vocabulary: Vocabulary, words: WordPieces, options: TextOptions):
        super().__init__()
        self._tokens = vocabulary.tokens
        self._unknown = (vocabulary.unk_id,)
        self._words = words
        self._aligner = Aligner(options)
        alone, apart = (f"[{_CJK}]|", _CJK) if options.tokenize_chinese_chars else ("", "")
        self.chunks = re.compile(f"{alone}[^{SPACES}{apart}]+").finditer

    def __missing__(self, chunk: str) -> Pieces:
        ids: list[int] = []
        offsets: list[tuple[int, int]] = []
        for word in self._aligner.words(chunk):
            pieces = self._words[word.text]
            ids += pieces
            if pieces == self._unknown:
                offsets.append((word.starts[0], max(word.ends)))
                continue
            at = 0
            for piece in pieces:
                end = at + len(self._tokens[piece].removeprefix(SUFFIX_INDICATOR if at else ""))
                offsets.append((word.starts[at], word.ends[end - 1]))
                at = end
        return self.keep(chunk, Pieces(tuple(ids), tuple(offsets)))

    def add(self, text: str, base: int, ids: list[int], offsets: list[tuple[int, int]]) -> None:
        """Append the pieces of `text`, which begins at `base`, to `ids` and `offsets`."""
        for match in self.chunks(text):
            pieces = self[match.group()]
            ids += pieces.ids
            at = base + match.start()
            offsets += [(start + at, end + at) for start, end in pieces.offsets]
