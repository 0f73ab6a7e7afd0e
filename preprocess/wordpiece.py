"""Words to word pieces on the host: the `tokenizers` library's greedy longest match, remembered per word."""

from __future__ import annotations

from itertools import chain
from typing import Protocol, TypeVar

from tokenizers.models import WordPiece

from tfbert_npu.preprocess.characters import MAX_WORD_CHARACTERS
from tfbert_npu.preprocess.vocabulary import SUFFIX_INDICATOR, Vocabulary

# Text repeats its words: remembering them makes the common case one dictionary look-up. Bounded, since a
# server sees text for ever; cleared whole, since refilling is cheap.
_MAX_REMEMBERED_CHARACTERS = 3_200_000
_MAX_REMEMBERED_LENGTH = MAX_WORD_CHARACTERS

# `tokenizers` tries every end of the rest of a word, so that its time grows with the square of the length.
_LONG_WORD = 48

Value = TypeVar("Value")


class Memory(dict[str, Value]):
    """What was worked out for a string, within bounds."""

    def __init__(self) -> None:
        super().__init__()
        self._characters = 0

    def keep(self, key: str, value: Value) -> Value:
        """Remember `value`, unless `key` is too long; returns it."""
        if len(key) <= _MAX_REMEMBERED_LENGTH:
            self._characters += len(key) + 1
            if self._characters > _MAX_REMEMBERED_CHARACTERS:
                self.clear()
                self._characters = len(key) + 1
            self[key] = value
        return value


class Normalizer(Protocol):
    """Text to words, in one dialect."""

    def words(self, text: str) -> list[str]:
        """The words of `text`, normalized."""

    def chunks(self, text: str) -> list[str]:
        """Parts of `text` as it stands whose words, one after the other, are the words of `text`."""


class WordPieces(Memory[tuple[int, ...]]):
    """Ids of the pieces of a word: `pieces[word]`.

    Args:
        vocabulary: The word pieces.
        max_word_characters: A word of more characters is `[UNK]`.
        max_word_bytes: A word of more bytes of UTF-8 is `[UNK]`; by default none is for its bytes.
    """

    def __init__(
        self,
        vocabulary: Vocabulary,
        max_word_characters: int = MAX_WORD_CHARACTERS,
        max_word_bytes: int | None = None,
    ):
        super().__init__()
        self._max_bytes = max_word_bytes
        self._unknown = (vocabulary.unk_id,)
        self._ids = vocabulary.ids
        self._max_characters = max_word_characters
        self._longest = max(map(len, vocabulary.ids), default=0)
        self._model = WordPiece(
            vocabulary.ids,
            unk_token="[UNK]",
            max_input_chars_per_word=max_word_characters,
            continuing_subword_prefix=SUFFIX_INDICATOR,
        )

    def __missing__(self, word: str) -> tuple[int, ...]:
        if self._max_bytes is not None and len(word.encode()) > self._max_bytes:
            return self._unknown
        if _LONG_WORD < len(word) <= self._max_characters:
            return self.keep(word, self._long(word))
        return self.keep(word, tuple([token.id for token in self._model.tokenize(word)]))

    def _long(self, word: str) -> tuple[int, ...]:
        """The same greedy longest match, which tries no piece longer than the vocabulary's longest."""
        pieces: list[int] = []
        at, prefix = 0, ""
        while at < len(word):
            for end in range(min(len(word), at + self._longest - len(prefix)), at, -1):
                found = self._ids.get(prefix + word[at:end])
                if found is not None:
                    pieces.append(found)
                    break
            else:
                return self._unknown
            at, prefix = end, SUFFIX_INDICATOR
        return tuple(pieces)


class ChunkPieces(Memory[tuple[int, ...]]):
    """Ids of the pieces of a chunk of raw text: `pieces[chunk]`; see `Normalizer.chunks`."""

    def __init__(self, normalizer: Normalizer, words: WordPieces):
        super().__init__()
        self._normalizer = normalizer
        self._words = words

    def __missing__(self, chunk: str) -> tuple[int, ...]:
        words = self._normalizer.words(chunk)
        ids = tuple(chain.from_iterable(map(self._words.__getitem__, words)))
        return self.keep(chunk, ids)
