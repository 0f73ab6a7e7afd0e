"""Texts to word-piece ids as published TF-Hub preprocessors give them, by the operation inside them."""

from __future__ import annotations

from typing import Any

import tensorflow as tf
import tensorflow_text as tf_text

from tfbert_npu.preprocess.options import TextOptions
from tfbert_npu.preprocess.pieces import AlignedPieces, Pieces
from tfbert_npu.preprocess.vocabulary import Vocabulary


class TfTextGraphTokenizer:
    """tensorflow-text's BertTokenizer.

    It differs from the original: it folds case and compatibility forms (NFKC_Casefold), makes control
    characters spaces, and limits a word to 100 bytes. Its offsets count bytes of the text so normalized.

    Args:
        vocabulary: The word pieces.
        options: Switches; the dialect is `"tf_text"`.
    """

    def __init__(self, vocabulary: Vocabulary, options: TextOptions):
        # What a later line repeats gets a name that no text holds: control characters are spaces here.
        names = [
            f"\0{index}" if index in vocabulary.shadowed else token
            for index, token in enumerate(vocabulary.tokens)
        ]
        ids = tf.lookup.KeyValueTensorInitializer(
            names, tf.range(len(vocabulary), dtype=tf.int64), tf.string, tf.int64
        )
        self._table = tf.lookup.StaticVocabularyTable(ids, num_oov_buckets=1)
        self._tokenizer = tf_text.BertTokenizer(
            self._table, lower_case=options.lower_case, token_out_type=tf.int32
        )

    @property
    def resources(self) -> list[Any]:
        """The look-up table."""
        return [self._table]

    def tokenize(self, texts: tf.Tensor) -> Pieces:
        """Word pieces of texts: string [B]."""
        pieces = self.tokenize_words(texts)
        return Pieces(pieces.flat_values, tf.gather(pieces.values.row_splits, pieces.row_splits))

    def tokenize_words(self, texts: tf.Tensor) -> tf.RaggedTensor:
        """Word pieces by word: string [B] to int32 [B, words, pieces]."""
        return self._tokenizer.tokenize(texts)

    def tokenize_aligned(self, texts: tf.Tensor) -> AlignedPieces:
        """Word pieces by word, with bytes of the text as tensorflow-text normalized it."""
        return AlignedPieces(*self._tokenizer.tokenize_with_offsets(texts))
