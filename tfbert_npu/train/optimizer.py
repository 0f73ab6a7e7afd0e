"""AdamW as BERT is fine-tuned with it: decay for matrices alone, and smaller rates for lower layers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras
from keras import ops

from tfbert_npu.encoder import BertEncoder


@keras.saving.register_keras_serializable(package="tfbert_npu")
class BertAdamW(keras.optimizers.AdamW):
    """AdamW (Loshchilov & Hutter 2019) with a learning rate factor for each variable.

    A variable is decayed by `learning rate x factor x weight_decay`, unless it is a bias or belongs to a
    LayerNorm (Devlin et al. 2018, appendix A.2; optimization.py of google-research/bert).

    Args:
        factors: Learning rate factor by `variable.path`; 1 where there is none.
        **kwargs: Arguments of `keras.optimizers.AdamW`.
    """

    def __init__(self, *args: Any, factors: Mapping[str, float] | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.factors = dict(factors or {})

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        """Decay and update one variable."""
        learning_rate = ops.multiply(learning_rate, self.factors.get(variable.path, 1.0))
        if self.weight_decay and decays(variable):
            rate = ops.cast(learning_rate * self.weight_decay, variable.dtype)
            self.assign_sub(variable, ops.multiply(variable, rate))
        super().update_step(gradient, variable, learning_rate)

    def _apply_weight_decay(self, variables: Any) -> None:
        # Keras' own decay knows no factors; update_step has done it.
        return

    def get_config(self) -> dict[str, Any]:
        """What `from_config` rebuilds the optimizer from."""
        return {**super().get_config(), "factors": self.factors}


def decays(variable: Any) -> bool:
    """Whether weight decay applies: not to biases nor to LayerNorm's gamma and beta."""
    return variable.path.rsplit("/", 1)[-1] not in ("bias", "gamma", "beta")


def layer_factors(model: Any, decay: float) -> dict[str, float]:
    """Learning rate factors that fall by `decay` from each layer to the one below (Howard & Ruder 2018).

    The head, the pooler and the language model head have factor 1, the topmost encoder layer `decay`, the
    embeddings `decay ** (layers + 1)`.

    Raises:
        ValueError: `decay` is not in (0, 1].
    """
    if not 0 < decay <= 1:
        raise ValueError(f"layer_decay must be in (0, 1], got {decay}")
    encoder: BertEncoder = model.encoder
    layers = len(encoder.layers)
    factors = {variable.path: decay ** (layers + 1) for variable in encoder.embeddings.trainable_variables}
    for index, layer in enumerate(encoder.layers):
        factors.update({variable.path: decay ** (layers - index) for variable in layer.trainable_variables})
    return factors
