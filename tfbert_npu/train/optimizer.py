"""AdamW as BERT is fine-tuned with it: decay for matrices alone, and smaller rates for lower layers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras
from keras import ops

from tfbert_npu.errors import require
from tfbert_npu.models.encoder import BertEncoder

tf = require("tensorflow", "tf")


@keras.saving.register_keras_serializable(package="tfbert_npu")
class BertAdamW(keras.optimizers.AdamW):
    """AdamW (Loshchilov & Hutter 2019) with a learning rate factor for each variable.

    A variable is decayed by `learning rate x factor x weight_decay`, unless it is a bias or belongs to a
    LayerNorm (Devlin et al. 2018, appendix A.2; optimization.py of google-research/bert). `global_clipnorm`
    clips the sum over all replicas, so that two replicas train as one with the doubled batch does.

    Args:
        factors: Learning rate factor by `variable.path`; 1 where there is none.
        **kwargs: Arguments of `keras.optimizers.AdamW`.
    """

    def __init__(self, *args: Any, factors: Mapping[str, float] | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.factors = dict(factors or {})

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        """Decay and update one variable."""
        # TensorFlow hands over its own variable, which knows no path.
        known = self._trainable_variables[self._get_variable_index(variable)]
        learning_rate = ops.multiply(learning_rate, self.factors.get(known.path, 1.0))
        if self.weight_decay and decays(known):
            rate = ops.cast(learning_rate * self.weight_decay, variable.dtype)
            self.assign_sub(variable, ops.multiply(variable, rate))
        if self.amsgrad:
            super().update_step(gradient, variable, learning_rate)
            return
        # Keras goes over every variable a dozen times, a quarter of a step on a CPU; this is the same in one.
        index, dtype = self._get_variable_index(variable), variable.dtype
        step = ops.cast(self.iterations + 1, dtype)
        tf.raw_ops.ResourceApplyAdam(
            var=variable.handle,
            m=self._momentums[index].value.handle,
            v=self._velocities[index].value.handle,
            beta1_power=ops.power(ops.cast(self.beta_1, dtype), step),
            beta2_power=ops.power(ops.cast(self.beta_2, dtype), step),
            lr=ops.cast(learning_rate, dtype),
            beta1=ops.cast(self.beta_1, dtype),
            beta2=ops.cast(self.beta_2, dtype),
            epsilon=ops.cast(self.epsilon, dtype),
            grad=ops.cast(tf.convert_to_tensor(gradient), dtype),
        )

    def _get_current_learning_rate(self) -> Any:
        # Keras asks a schedule for the rate at the number of batches, not of updates, and so runs through it
        # too fast when gradients are accumulated.
        if isinstance(self._learning_rate, keras.optimizers.schedules.LearningRateSchedule):
            return self._learning_rate(self.iterations)
        return super()._get_current_learning_rate()

    def _clip_gradients(self, grads: Any) -> Any:
        # Keras would clip what each replica has found before it knows the sum.
        return grads if self.global_clipnorm else super()._clip_gradients(grads)

    def _all_reduce_sum_gradients(self, grads_and_vars: Any) -> Any:
        pairs = list(super()._all_reduce_sum_gradients(grads_and_vars))
        if self.global_clipnorm:
            # An embedding's gradient lists a row once for each of its words; its norm is that of their sum.
            dense = [None if gradient is None else tf.convert_to_tensor(gradient) for gradient, _ in pairs]
            clipped, _ = tf.clip_by_global_norm(dense, self.global_clipnorm)
            pairs = [(gradient, variable) for gradient, (_, variable) in zip(clipped, pairs, strict=True)]
        return pairs

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
