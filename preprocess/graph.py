"""The compiled functions behind `BertPreprocessor`."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import tensorflow as tf

from tfbert_npu.preprocess.graph_packing import pack
from tfbert_npu.preprocess.graph_tokenizer import BertGraphTokenizer
from tfbert_npu.preprocess.options import TextOptions, Trimming
from tfbert_npu.preprocess.vocabulary import Vocabulary


class PreprocessingGraph:
    """Tokenization and packing, traced once for each number of segments and length.

    No Keras layer and no tf.Module, so that a SavedModel holds the functions it uses and no others.

    Args:
        vocabulary: The word pieces.
        options: Dialect and switches.
        trimming: How two segments share the room.
    """

    def __init__(self, vocabulary: Vocabulary, options: TextOptions, trimming: Trimming):
        self._vocabulary = vocabulary
        self._trimming = trimming
        with tf.init_scope():  # the tables are constants that every graph shares
            self.tokenizer = BertGraphTokenizer(vocabulary, options)
        self._compiled: dict[tuple[int, int], Callable[..., dict[str, tf.Tensor]]] = {}

    def encode(self, segments: Sequence[tf.Tensor], seq_length: int) -> dict[str, tf.Tensor]:
        """One or two string tensors [B] to BERT's inputs, int32 [B, seq_length]."""
        key = (len(segments), seq_length)
        if key not in self._compiled:

            def encode(*texts: tf.Tensor) -> dict[str, tf.Tensor]:
                pieces = [self.tokenizer.tokenize(text) for text in texts]
                return pack(pieces, seq_length, self._vocabulary, self._trimming)

            signature = [tf.TensorSpec([None], tf.string)] * len(segments)
            self._compiled[key] = tf.function(encode, input_signature=signature, autograph=False)
        return self._compiled[key](*segments)
