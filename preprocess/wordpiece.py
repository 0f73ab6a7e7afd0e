"""Words to word pieces on the host: the `tokenizers` library's greedy longest match, remembered per word."""

from __future__ import annotations

from itertools import chain
from typing import Protocol

from tokenizers.models import WordPiece

from tfbert_npu.preprocess.characters import MAX_WORD_CHARACTERS
from tfbert_npu.preprocess.vocabulary import SUFFIX_INDICATOR, Vocabulary

# Text repeats its words: remembering them makes the common case one dictionary look-up. Bounded, since a
# server sees text for ever; cleared whole, since refilling is cheap.
_MAX_REMEMBERED = 100_000
_MAX_REMEMBERED_LENGTH = 32


class Normalizer(Protocol):
    """Text to words, in one dialect."""

    def words(self, text: str) -> list[str]:
        """The words of `text`, normalized."""

    def chunks(self, text: str) -> list[str]:
        """Parts of `text` as it stands whose words, one after the other, are the words of `text`."""


class WordPieces(dict[str, tuple[int, ...]]):
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
        self._model = WordPiece(
            vocabulary.ids,
            unk_token="[UNK]",
            max_input_chars_per_word=max_word_characters,
            continuing_subword_prefix=SUFFIX_INDICATOR,
        )

    def __missing__(self, word: str) -> tuple[int, ...]:
        if self._max_bytes is not None and len(word.encode()) > self._max_bytes:
            return self._unknown
        return _remember(self, word, tuple([token.id for token in self._model.tokenize(word)]))


class ChunkPieces(dict[str, tuple[int, ...]]):
    """Ids of the pieces of a chunk of raw text: `pieces[chunk]`; see `Normalizer.chunks`."""

    def __init__(self, normalizer: Normalizer, words: WordPieces):
        super().__init__()
        self._normalizer = normalizer
        self._words = words

    def __missing__(self, chunk: str) -> tuple[int, ...]:
        words = self._normalizer.words(chunk)
        ids = tuple(chain.from_iterable(map(self._words.__getitem__, words)))
        return _remember(self, chunk, ids)


def _remember(memory: dict[str, tuple[int, ...]], key: str, ids: tuple[int, ...]) -> tuple[int, ...]:
    if len(key) <= _MAX_REMEMBERED_LENGTH:
        if len(memory) >= _MAX_REMEMBERED:
            memory.clear()
        memory[key] = ids
    return ids
