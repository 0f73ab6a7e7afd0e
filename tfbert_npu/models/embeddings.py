"""Word, position and token type embeddings: the first step of a BERT."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from tfbert_npu.config import BertConfig
from tfbert_npu.models.common import dropout, initializer, layer_norm


class BertEmbeddings(keras.layers.Layer):
    """LayerNorm of the sum of three embeddings (Devlin et al. 2018, figure 2).

    Call with `word_ids` and `type_ids`, int32 [B, S]; gives [B, S, hidden_size] in the compute dtype. Where
    the configuration has no token types (DistilBERT), `type_ids` is not looked at.
    """

    def __init__(self, config: BertConfig, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.config = config

        def table(rows: int, name: str) -> keras.layers.Embedding:
            return keras.layers.Embedding(
                rows,
                config.hidden_size,
                embeddings_initializer=initializer(config),
                dtype=self.dtype_policy,
                name=name,
            )

        self.word_embeddings = table(config.vocab_size, "word_embeddings")
        self.position_embeddings = table(config.max_position_embeddings, "position_embeddings")
        self.token_type_embeddings = None
        if config.type_vocab_size:
            self.token_type_embeddings = table(config.type_vocab_size, "token_type_embeddings")
        self.layer_norm = layer_norm(config, self.dtype_policy, "layer_norm")
        self.seed_generator = keras.random.SeedGenerator()

    def build(self, input_shape: Any = None) -> None:
        """Create the tables; their sizes do not depend on the input."""
        self.word_embeddings.build()
        self.position_embeddings.build()
        if self.token_type_embeddings is not None:
            self.token_type_embeddings.build()
        self.layer_norm.build((None, None, self.config.hidden_size))
        self.built = True

    def call(self, word_ids: Any, type_ids: Any = None, training: bool | None = None) -> Any:
        """Embed `word_ids` and `type_ids`, int [B, S], as [B, S, hidden_size]."""
        x = self.word_embeddings(_not_negative(word_ids, self.config.vocab_size))
        positions = ops.cast(self.position_embeddings.embeddings, self.compute_dtype)
        x = ops.add(x, positions[: ops.shape(word_ids)[1]])
        if self.token_type_embeddings is not None:
            x = ops.add(x, self.token_type_embeddings(_not_negative(type_ids, self.config.type_vocab_size)))
        x = self.layer_norm(x)
        seed = self.seed_generator.next() if training and self.config.hidden_dropout_prob else None
        return dropout(x, self.config.hidden_dropout_prob, seed, salt=0)


def _not_negative(ids: Any, size: int) -> Any:
    # Keras counts a negative index from the end of the table, which would hide a wrong id inside a graph;
    # past the end of the table TensorFlow's gather on the CPU raises.
    return ops.where(ids < 0, size, ids)
