"""The masked language model head."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from tfbert_npu.config import BertConfig
from tfbert_npu.models.common import activation, dense, layer_norm


class MaskedLMHead(keras.layers.Layer):
    """Logits over the vocabulary: a transform, then a product with the word embedding table.

    Call with hidden states [..., hidden_size] and the word embedding table [vocab_size, hidden_size]; gives
    [..., vocab_size].
    """

    def __init__(self, config: BertConfig, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.config = config
        self.dense = dense(config.hidden_size, config, self.dtype_policy, "dense")
        self.layer_norm = layer_norm(config, self.dtype_policy, "layer_norm")
        self._activation = activation(config.hidden_act)

    def build(self, *input_shapes: Any, **named_shapes: Any) -> None:
        """Create the transform and the bias of the vocabulary."""
        hidden = (None, None, self.config.hidden_size)
        self.dense.build(hidden)
        self.layer_norm.build(hidden)
        self.bias = self.add_weight(shape=(self.config.vocab_size,), initializer="zeros", name="bias")
        self.built = True

    def call(self, x: Any, word_embeddings: Any) -> Any:
        """Score every word of the vocabulary for every row of `x`."""
        x = self.layer_norm(self._activation(self.dense(x)))
        table = ops.cast(word_embeddings, self.compute_dtype)
        return ops.add(ops.matmul(x, ops.transpose(table)), self.bias)


def gather_positions(sequence_output: Any, positions: Any) -> Any:
    """The hidden states at some positions of each sequence.

    Args:
        sequence_output: [B, S, H].
        positions: int [B, P], each below S.

    Returns:
        [B, P, H].
    """
    shape = ops.shape(sequence_output)
    batch, length, width = shape[0], shape[1], sequence_output.shape[-1]
    # Past the sequence's end a flat index would reach into the next row of the batch; past the end of all
    # of them, where this sends it, TensorFlow's gather on the CPU raises.
    wrong = ops.logical_or(positions < 0, positions >= length)
    flat = positions + ops.arange(batch, dtype=positions.dtype)[:, None] * length
    flat = ops.where(wrong, batch * length, flat)
    return ops.take(ops.reshape(sequence_output, (-1, width)), flat, axis=0)
