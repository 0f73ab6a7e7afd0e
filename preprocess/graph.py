"""The compiled functions behind `BertPreprocessor`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf

from tfbert_npu.preprocess.graph_packing import pack
from tfbert_npu.preprocess.graph_tokenizer import BertGraphTokenizer
from tfbert_npu.preprocess.graph_tokenizer_tf_text import TfTextGraphTokenizer
from tfbert_npu.preprocess.options import TextOptions, Trimming
from tfbert_npu.preprocess.pieces import AlignedPieces, GraphTokenizer, Pieces
from tfbert_npu.preprocess.vocabulary import SUFFIX_INDICATOR, Vocabulary


class PreprocessingGraph:
    """Tokenization and packing, each traced once for its settings.

    No Keras layer and no tf.Module, so that a SavedModel holds the functions it uses and no others.

    Args:
        vocabulary: The word pieces.
        options: Dialect and switches.
    """

    def __init__(self, vocabulary: Vocabulary, options: TextOptions):
        self._vocabulary = vocabulary
        self._closes_empty = options.dialect == "tf_text"
        with tf.init_scope():  # the tables are constants that every graph shares
            tokenizer = BertGraphTokenizer if options.dialect == "bert" else TfTextGraphTokenizer
            self._tokens = tf.constant(vocabulary.tokens)
            self.tokenizer: GraphTokenizer = tokenizer(vocabulary, options)
        self._compiled: dict[tuple[Any, ...], Callable[..., Any]] = {}

    def encode(
        self, segments: Sequence[tf.Tensor], seq_length: int, trimming: Trimming
    ) -> dict[str, tf.Tensor]:
        """One or two string tensors [B] to BERT's inputs, int32 [B, seq_length]."""

        def encode(*texts: tf.Tensor) -> dict[str, tf.Tensor]:
            return self.pack([self.tokenizer.tokenize(text) for text in texts], seq_length, trimming)

        return self._call(("encode", seq_length, trimming), encode, segments)

    def tokenize(self, texts: tf.Tensor) -> tf.RaggedTensor:
        """Word pieces by word: string [B] to int32 [B, words, pieces]."""
        return self._call(("tokenize",), self.tokenizer.tokenize_words, [texts])

    def tokenize_aligned(self, texts: tf.Tensor) -> AlignedPieces:
        """Word pieces by word, with byte offsets."""
        return self._call(("tokenize_aligned",), self.tokenizer.tokenize_aligned, [texts])

    def pack(self, segments: Sequence[Pieces], seq_length: int, trimming: Trimming) -> dict[str, tf.Tensor]:
        """One or two segments of word pieces to BERT's inputs, int32 [B, seq_length]."""
        return pack(segments, seq_length, self._vocabulary, trimming, self._closes_empty)

    def detokenize(self, ids: tf.RaggedTensor) -> tf.RaggedTensor:
        """Words of word pieces: ragged [..., pieces] to string [..., words]."""
        pieces = tf.ragged.map_flat_values(tf.gather, self._tokens, ids)
        words = tf.strings.reduce_join(pieces, axis=-1, separator=" ")
        words = tf.ragged.map_flat_values(tf.strings.regex_replace, words, f" {SUFFIX_INDICATOR}", "")
        return tf.strings.split(words, " ")

    def _call(self, key: tuple[Any, ...], function: Callable[..., Any], texts: Sequence[tf.Tensor]) -> Any:
        key = (*key, len(texts))
        if key not in self._compiled:
            signature = [tf.TensorSpec([None], tf.string)] * len(texts)
            self._compiled[key] = tf.function(function, input_signature=signature, autograph=False)
        return self._compiled[key](*texts)
