"""One layer of the encoder: attention, then a feed-forward network, each with its residual and LayerNorm."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from tfbert_npu.config import BertConfig
from tfbert_npu.models.attention import SelfAttention
from tfbert_npu.models.common import activation, dense, dropout, layer_norm


class TransformerBlock(keras.layers.Layer):
    """A post-LayerNorm Transformer encoder layer (Vaswani et al. 2017; Devlin et al. 2018).

    Call with the hidden states [B, S, hidden_size] and the bias of `attention_bias`; gives
    [B, S, hidden_size].

    Args:
        config: Sizes, activation and dropout rates.
        gradient_checkpointing: Keep only the block's input for the gradient and compute the rest again
            (Chen et al. 2016): about a third more time for much less memory.
    """

    def __init__(self, config: BertConfig, gradient_checkpointing: bool = False, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.config = config
        self.gradient_checkpointing = gradient_checkpointing
        self.attention = SelfAttention(config, dtype=self.dtype_policy, name="attention")
        self.attention_norm = layer_norm(config, self.dtype_policy, "attention_norm")
        self.intermediate = dense(config.intermediate_size, config, self.dtype_policy, "intermediate")
        self.output_projection = dense(config.hidden_size, config, self.dtype_policy, "output_projection")
        self.output_norm = layer_norm(config, self.dtype_policy, "output_norm")
        self.seed_generator = keras.random.SeedGenerator()
        self._activation = activation(config.hidden_act)

    def build(self, input_shape: Any = None) -> None:
        """Create the weights; their sizes do not depend on the input."""
        hidden = (None, None, self.config.hidden_size)
        self.attention.build(hidden)
        self.attention_norm.build(hidden)
        self.intermediate.build(hidden)
        self.output_projection.build((None, None, self.config.intermediate_size))
        self.output_norm.build(hidden)
        self.built = True

    def call(self, x: Any, bias: Any, training: bool | None = None) -> Any:
        """Run the layer on `x` [B, S, hidden_size]."""
        drops = self.config.hidden_dropout_prob or self.config.attention_probs_dropout_prob
        seed = self.seed_generator.next() if training and drops else None
        if self.gradient_checkpointing and training:
            # Only x takes part in the gradient; the rest is captured, so that nobody tries to watch a seed.
            return keras.remat(lambda x: self._forward(x, bias, seed))(x)
        return self._forward(x, bias, seed)

    def _forward(self, x: Any, bias: Any, seed: Any) -> Any:
        rate = self.config.hidden_dropout_prob
        attended = dropout(self.attention(x, bias, seed), rate, seed, salt=2)
        x = self.attention_norm(ops.add(x, attended))
        inner = self._activation(self.intermediate(x))
        inner = dropout(self.output_projection(inner), rate, seed, salt=3)
        return self.output_norm(ops.add(x, inner))
