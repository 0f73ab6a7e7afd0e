"""The parts of `BertPreprocessor` as layers of their own: the TF-Hub preprocessor's sub-objects.

They are layers so that functional models may use them. A ragged tensor inside a functional model has the
dense symbolic shape [batch, None, None]; its values stay ragged.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from tfbert_npu.preprocess.inputs import as_ragged, as_ragged_segments, as_texts, checked_length
from tfbert_npu.preprocess.options import TextOptions, Trimming, one_of
from tfbert_npu.preprocess.pieces import Pieces
from tfbert_npu.preprocess.vocabulary import Vocabulary
from tfbert_npu.preprocess.vocabulary_layer import VocabularyLayer

OUTPUTS = ("input_word_ids", "input_mask", "input_type_ids")


def packed_spec(batch: int | None, seq_length: int) -> dict[str, keras.KerasTensor]:
    """Symbolic BERT inputs, int32 [batch, seq_length]."""
    return {name: keras.KerasTensor((batch, seq_length), dtype="int32", name=name) for name in OUTPUTS}


@keras.saving.register_keras_serializable("tfbert_npu")
class BertTokenize(VocabularyLayer):
    """Texts to word pieces by word: string [B] to RaggedTensor int32 [B, words, pieces]."""

    def __call__(self, inputs: Any, **kwargs: Any) -> Any:
        """Check the texts, make them a tensor as Keras wants it, and `call`."""
        return super().__call__(as_texts(inputs), **kwargs)

    def call(self, inputs: Any) -> tf.RaggedTensor:
        """Ids without special tokens."""
        return self._graph.tokenize(inputs)

    def compute_output_spec(self, inputs: Any) -> keras.KerasTensor:
        """Symbolic output, int32 [B, None, None]."""
        return keras.KerasTensor((inputs.shape[0], None, None), dtype="int32")


@keras.saving.register_keras_serializable("tfbert_npu")
class BertTokenizeWithOffsets(VocabularyLayer):
    """Texts to word pieces and the bytes they stand for: three RaggedTensors [B, words, pieces].

    They are ids (int32), starts and limits (int64): `text[start:limit]` of the UTF-8 bytes. In dialect
    `"bert"` the text is the user's own, and offsets fall on character boundaries; a piece whose
    characters cleaning or lower-casing changed covers what it came from. In dialect `"tf_text"` the text
    is tensorflow-text's normalization of it.
    """

    def __call__(self, inputs: Any, **kwargs: Any) -> Any:
        """Check the texts, make them a tensor as Keras wants it, and `call`."""
        return super().__call__(as_texts(inputs), **kwargs)

    def call(self, inputs: Any) -> tuple[tf.RaggedTensor, tf.RaggedTensor, tf.RaggedTensor]:
        """Ids, starts and limits."""
        aligned = self._graph.tokenize_aligned(inputs)
        return aligned.ids, aligned.starts, aligned.limits

    def compute_output_spec(self, inputs: Any) -> tuple[keras.KerasTensor, ...]:
        """Symbolic outputs [B, None, None]."""
        shape = (inputs.shape[0], None, None)
        return tuple(keras.KerasTensor(shape, dtype=dtype) for dtype in ("int32", "int64", "int64"))


@keras.saving.register_keras_serializable("tfbert_npu")
class BertPackInputs(VocabularyLayer):
    """Word pieces to BERT's three inputs.

    Args:
        vocabulary: The word pieces.
        options: Dialect and switches.
        seq_length: L, the length of every row unless a call says otherwise.
        trimming: How two segments share the room unless a call says otherwise; see `trimming.trim_pair`.
    """

    def __init__(
        self,
        vocabulary: Vocabulary,
        options: TextOptions | None = None,
        seq_length: int = 128,
        trimming: Trimming = "round_robin",
        **kwargs: Any,
    ):
        super().__init__(vocabulary, options, **kwargs)
        one_of(trimming, Trimming, "trimming")
        self.seq_length = checked_length(seq_length, 1)
        self.trimming = trimming

    def __call__(
        self, inputs: Any, seq_length: int | None = None, trimming: Trimming | None = None, **kwargs: Any
    ) -> Any:
        """Check the segments, make them ragged, and `call`."""
        return super().__call__(
            as_ragged_segments(inputs), seq_length=seq_length, trimming=trimming, **kwargs
        )

    def call(
        self,
        inputs: Sequence[tf.RaggedTensor],
        seq_length: int | None = None,
        trimming: Trimming | None = None,
    ) -> dict[str, tf.Tensor]:
        """Pack one or two segments.

        Args:
            inputs: A list of one or two ragged integer tensors [B, pieces] or [B, words, pieces].
            seq_length: L, if not the layer's own.
            trimming: If not the layer's own.

        Returns:
            `input_word_ids`, `input_mask` and `input_type_ids`, int32 [B, L].

        Raises:
            ValueError: More than two segments, other ranks, or no room for the special tokens.
        """
        trimming = self.trimming if trimming is None else trimming
        one_of(trimming, Trimming, "trimming")
        length = self._length(inputs, seq_length)
        return self._graph.pack([_pieces(segment) for segment in inputs], length, trimming)

    def compute_output_spec(
        self, inputs: Sequence[Any], seq_length: int | None = None, trimming: Trimming | None = None
    ) -> dict[str, keras.KerasTensor]:
        """Symbolic outputs, int32 [B, L]."""
        return packed_spec(inputs[0].shape[0], self._length(inputs, seq_length))

    def _length(self, inputs: Sequence[Any], seq_length: int | None) -> int:
        return checked_length(self.seq_length if seq_length is None else seq_length, len(inputs))

    def get_config(self) -> dict[str, Any]:
        """Configuration, vocabulary included."""
        return {**super().get_config(), "seq_length": self.seq_length, "trimming": self.trimming}


@keras.saving.register_keras_serializable("tfbert_npu")
class BertDetokenize(VocabularyLayer):
    """Word pieces to words: integers [..., pieces], ragged or dense, to RaggedTensor string [..., words].

    Special tokens and padding are words like any other.
    """

    def __call__(self, inputs: Any, **kwargs: Any) -> Any:
        """Check the ids, make them ragged, and `call`."""
        return super().__call__(as_ragged(inputs), **kwargs)

    def call(self, inputs: tf.RaggedTensor) -> tf.RaggedTensor:
        """Words."""
        return self._graph.detokenize(as_ragged(inputs))

    def compute_output_spec(self, inputs: Any) -> keras.KerasTensor:
        """Symbolic output, string of the shape of the ids."""
        return keras.KerasTensor((*inputs.shape[:-1], None), dtype="string")


def _pieces(segment: Any) -> Pieces:
    segment = as_ragged(segment)
    if segment.shape.rank == 3:
        segment = segment.merge_dims(1, 2)
    return Pieces(tf.cast(segment.values, tf.int32), tf.cast(segment.row_splits, tf.int64))
