"""Texts to word-piece ids inside a TensorFlow graph, equal to Google's original tokenizer.

tensorflow-text's FastWordpieceTokenizer does the greedy longest match (Song et al., "Fast WordPiece
Tokenization", EMNLP 2021) and splits words by itself, but at its own idea of punctuation. It therefore
only sees text on which that idea and the original's agree: plain ASCII, or the output of `GraphNormalizer`
in which words stand apart and characters that it would split at are spelled differently.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import tensorflow as tf
import tensorflow_text as tf_text

from tfbert_npu.errors import VocabularyError
from tfbert_npu.preprocess.character_table import build_character_table
from tfbert_npu.preprocess.characters import MAX_WORD_CHARACTERS, is_removed, is_space
from tfbert_npu.preprocess.graph_normalizer import GraphNormalizer
from tfbert_npu.preprocess.graph_text import decode_aligned, encode
from tfbert_npu.preprocess.kernel_probe import (
    fast_normalizer,
    folded_pattern,
    plain_pattern,
    split_by_kernel,
)
from tfbert_npu.preprocess.options import TextOptions
from tfbert_npu.preprocess.pieces import AlignedPieces, Pieces
from tfbert_npu.preprocess.vocabulary import SUFFIX_INDICATOR, Vocabulary

# Only in a text of more bytes than this can a word exceed the limit in characters.
_LONG_WORD = rf"[^ \t\n\r]{{{MAX_WORD_CHARACTERS + 1}}}"
_NO_BYTE_LIMIT = 1 << 20  # the normalizer enforces the limit in characters


class BertGraphTokenizer:
    """Google's tokenizer in a graph.

    Args:
        vocabulary: The word pieces.
        options: Switches; the dialect is `"bert"`.
    """

    def __init__(self, vocabulary: Vocabulary, options: TextOptions):
        known = frozenset("".join(vocabulary.tokens))
        spare = _spare_characters(known)
        unknown = next(spare)
        spelling = {char: next(spare) for char in split_by_kernel(sorted(known), options)}
        if missing := sorted(options.allow_special_tokens - set(vocabulary.ids)):
            raise VocabularyError(
                f"allow_special_tokens names {', '.join(missing)}, which the vocabulary lacks"
            )
        marks = {token: next(spare) for token in sorted(options.allow_special_tokens)}
        table = build_character_table(options, known, unknown, spelling, tuple(marks.values()))
        self._normalizer = GraphNormalizer(table, unknown, tuple(marks.items()))
        self._lower = options.lower_case
        switches = replace(options, allow_special_tokens=frozenset())
        self._plain_pattern = plain_pattern(switches)
        folds = options.lower_case and options.strips_accents
        self._folded_pattern = folded_pattern(switches) if folds else None
        self._special_pattern = "|".join(map(re.escape, sorted(options.allow_special_tokens)))
        self._pieces = tf_text.FastWordpieceTokenizer(
            _kernel_vocabulary(vocabulary, spelling, marks, spare),
            suffix_indicator=SUFFIX_INDICATOR,
            max_bytes_per_word=_NO_BYTE_LIMIT,
            token_out_type=tf.int32,
            unknown_token="[UNK]",
        )
        self._continues = tf.constant([token.startswith(SUFFIX_INDICATOR) for token in vocabulary.tokens])

    @property
    def resources(self) -> list[Any]:
        """None: tables and model are constants."""
        return []

    def tokenize(self, texts: tf.Tensor) -> Pieces:
        """Word pieces of texts: string [B]."""
        ready = tf.strings.lower(texts) if self._lower else texts
        pieces = self._pieces.tokenize(self._where_not(self._plain_pattern, texts, ready, self._fold))
        return Pieces(pieces.values, pieces.row_splits)

    def _fold(self, texts: tf.Tensor) -> tf.Tensor:
        """Texts that the kernel cannot take as they are, normalized: string [B]."""
        if self._folded_pattern is None:
            return self._normalizer.normalize(texts)
        with tf.init_scope():
            normalizer = fast_normalizer()
        ready = normalizer.normalize(texts)
        return self._where_not(self._folded_pattern, texts, ready, self._normalizer.normalize)

    def _where_not(
        self, pattern: str, texts: tf.Tensor, ready: tf.Tensor, normalize: Callable[[tf.Tensor], tf.Tensor]
    ) -> tf.Tensor:
        """`ready` for texts of the pattern without overlong words and special tokens, else normalized."""
        easy = tf.strings.regex_full_match(texts, pattern)
        if self._special_pattern:
            easy &= ~tf.strings.regex_full_match(texts, f"(?s).*(?:{self._special_pattern}).*")
        long_texts = tf.where(tf.strings.length(texts) > MAX_WORD_CHARACTERS)

        def without_long_words() -> tf.Tensor:
            found = tf.strings.regex_full_match(tf.gather_nd(ready, long_texts), f"(?s).*{_LONG_WORD}.*")
            return easy & ~tf.scatter_nd(long_texts, found, tf.shape(texts, tf.int64))

        easy = tf.cond(tf.size(long_texts) > 0, without_long_words, lambda: easy)

        def mixed() -> tf.Tensor:
            others = tf.where(~easy)
            return tf.tensor_scatter_nd_update(ready, others, normalize(tf.gather_nd(texts, others)))

        return tf.cond(tf.reduce_all(easy), lambda: ready, mixed)

    def tokenize_words(self, texts: tf.Tensor) -> tf.RaggedTensor:
        """Word pieces by word: string [B] to int32 [B, words, pieces]."""
        ids, splits = self.tokenize(texts)
        return self._by_word(ids, splits, [ids])[0]

    def tokenize_aligned(self, texts: tf.Tensor) -> AlignedPieces:
        """Word pieces by word, with the bytes of the user's text that they stand for."""
        decoded = decode_aligned(texts)
        normal = self._normalizer.normalize_aligned(decoded.characters)
        ready = encode(normal)
        ids, starts, limits = self._pieces.tokenize_with_offsets(ready)
        splits = ids.row_splits
        # Bytes of the normalized text -> its characters -> characters of the user's text -> its bytes.
        rows = tf.ragged.row_splits_to_segment_ids(splits)
        lengths = _utf8_length(normal.points)
        byte_ends = tf.cumsum(lengths)
        base = tf.gather(tf.concat([[0], byte_ends], 0), tf.gather(normal.splits, rows))
        first = tf.searchsorted(byte_ends, base + tf.cast(starts.values, tf.int32), side="right")
        last = tf.searchsorted(byte_ends, base + tf.cast(limits.values, tf.int32) - 1, side="right")
        start_bytes = tf.gather(decoded.starts, tf.gather(normal.sources, first))
        limit_bytes = tf.gather(decoded.limits, tf.gather(normal.source_ends, last) - 1)
        return AlignedPieces(*self._by_word(ids.values, splits, [ids.values, start_bytes, limit_bytes]))

    def _by_word(
        self, ids: tf.Tensor, splits: tf.Tensor, values: Sequence[tf.Tensor]
    ) -> list[tf.RaggedTensor]:
        word_starts = tf.where(~tf.gather(self._continues, ids))[:, 0]
        piece_splits = tf.concat([word_starts, tf.shape(ids, tf.int64)[:1]], 0)
        word_splits = tf.searchsorted(word_starts, splits, out_type=tf.int64)
        return [
            tf.RaggedTensor.from_nested_row_splits(value, [word_splits, piece_splits], validate=False)
            for value in values
        ]


def _spare_characters(known: frozenset[str]) -> Iterator[str]:
    """Private-use characters that no piece contains: they have no case, no class and no decomposition."""
    return (char for char in map(chr, range(0xF0000, 0xFFFFE)) if char not in known)


def _kernel_vocabulary(
    vocabulary: Vocabulary, spelling: dict[str, str], marks: dict[str, str], spare: Iterator[str]
) -> list[str]:
    """The vocabulary in the alphabet of the normalized text, ids unchanged."""
    respell = str.maketrans(spelling)
    tokens = []
    for index, token in enumerate(vocabulary.tokens):
        if index in vocabulary.shadowed:
            tokens.append(next(spare))
        elif token in marks and token != "[UNK]":  # the kernel needs that one; its mark is unknown anyway
            tokens.append(marks[token])
        elif token in ("", SUFFIX_INDICATOR) or any(is_removed(char) or is_space(char) for char in token):
            tokens.append(next(spare))  # no text can match it, and the kernel may refuse it
        else:
            tokens.append(token.translate(respell))
    return tokens


def _utf8_length(points: tf.Tensor) -> tf.Tensor:
    return 1 + sum(tf.cast(points >= bound, tf.int32) for bound in (0x80, 0x800, 0x10000))
