"""Multi-head self-attention."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from tfbert_npu.config import BertConfig
from tfbert_npu.models.common import dense, dropout

# Beyond any real score, and far enough inside the range that adding a score never overflows to -inf: a row
# whose whole mask is zero then has a softmax of equal weights instead of NaN.
_MASKED = {"float16": -3.0e4}
_MASKED_DEFAULT = -1.0e9


def attention_bias(mask: Any, dtype: str, causal: bool = False) -> Any:
    """What is added to the attention scores: 0 where a token may be attended to, a large negative elsewhere.

    Args:
        mask: int [B, S], 1 for tokens and 0 for padding.
        dtype: Compute dtype of the scores.
        causal: Let a token attend only to itself and to tokens before it.

    Returns:
        [B, 1, 1, S], or [B, 1, S, S] if causal.
    """
    allowed = ops.cast(ops.not_equal(mask, 0), dtype)[:, None, None, :]
    if causal:
        positions = ops.arange(ops.shape(mask)[1])
        allowed = allowed * ops.cast(positions[:, None] >= positions[None, :], dtype)
    return (1.0 - allowed) * _MASKED.get(dtype, _MASKED_DEFAULT)


class SelfAttention(keras.layers.Layer):
    """Scaled dot-product attention over several heads (Vaswani et al. 2017), with its output projection.

    Call with the hidden states [B, S, hidden_size] and the bias of `attention_bias`; gives
    [B, S, hidden_size].
    """

    def __init__(self, config: BertConfig, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.config = config
        self.query = dense(config.hidden_size, config, self.dtype_policy, "query")
        self.key = dense(config.hidden_size, config, self.dtype_policy, "key")
        self.value = dense(config.hidden_size, config, self.dtype_policy, "value")
        self.output_projection = dense(config.hidden_size, config, self.dtype_policy, "output_projection")

    def build(self, input_shape: Any = None) -> None:
        """Create the four projections."""
        for projection in (self.query, self.key, self.value, self.output_projection):
            projection.build((None, None, self.config.hidden_size))
        self.built = True

    def call(self, x: Any, bias: Any, seed: Any = None) -> Any:
        """Attend; `seed` is a drawn seed [2] during training and None otherwise."""
        heads, width = self.config.num_attention_heads, self.config.head_size
        shape = ops.shape(x)
        split = (shape[0], shape[1], heads, width)
        # Scaling the query costs S x hidden products; scaling the scores would cost heads x S x S.
        query = ops.multiply(self.query(x), width**-0.5)
        query = ops.transpose(ops.reshape(query, split), (0, 2, 1, 3))
        key = ops.transpose(ops.reshape(self.key(x), split), (0, 2, 3, 1))
        value = ops.transpose(ops.reshape(self.value(x), split), (0, 2, 1, 3))
        # `+`, not ops.add: Keras would make it a BiasAdd, which refuses an empty batch.
        weights = _softmax(ops.matmul(query, key) + bias)
        weights = dropout(weights, self.config.attention_probs_dropout_prob, seed, salt=1)
        context = ops.transpose(ops.matmul(weights, value), (0, 2, 1, 3))
        return self.output_projection(ops.reshape(context, shape))


def _softmax(scores: Any) -> Any:
    # A sum of exponentials over hundreds of tokens loses too much in half precision.
    return ops.cast(ops.softmax(ops.cast(scores, "float32")), scores.dtype)
