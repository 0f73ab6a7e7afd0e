"""`BertEncoder.mlm`: the encoder together with its masked language model head."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import keras

from tfbert_npu.inputs import MLM_POSITIONS, check_inputs
from tfbert_npu.models.mlm_head import gather_positions


@keras.saving.register_keras_serializable(package="tfbert_npu")
class MaskedLMEncoder(keras.layers.Layer):
    """An encoder that predicts words at given positions.

    Call with the encoder's three inputs and `masked_lm_positions`, int [B, P]: positions in the sequence,
    counted from 0; unused places may hold 0. It gives the encoder's `pooled_output`, `sequence_output` and
    `encoder_outputs`, and `mlm_logits` [B, P, vocab_size]. Made by `BertEncoder.mlm`, with which it shares
    its variables; the output matrix is the word embedding table.
    """

    def __init__(self, encoder: Any, **kwargs: Any) -> None:
        kwargs.setdefault("dtype", encoder.dtype_policy)
        super().__init__(**kwargs)
        self.encoder = encoder
        self.mlm_head = encoder.mlm_head

    def build(self, input_shape: Any = None) -> None:
        """Build the encoder, and the head with it."""
        self.encoder.build()
        self.built = True

    def __call__(self, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        """Check the inputs, then call the layer."""
        return super().__call__(check_inputs(inputs, self.encoder.config, mlm=True), *args, **kwargs)

    def call(self, inputs: Mapping[str, Any], training: bool | None = None) -> dict[str, Any]:
        """Encode, and score the vocabulary at `masked_lm_positions`."""
        delegation = self.encoder.delegation
        if delegation is not None and "mlm_logits" in delegation.model.output_names:
            return delegation.call(inputs, training, mlm=True)
        return self._scored(dict(inputs), lambda inputs: self.encoder(inputs, training=training))

    def call_in_tensorflow(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """The same with this layer's own weights, delegated or not."""
        return self._scored(dict(inputs), self.encoder.call_in_tensorflow)

    def _scored(
        self, inputs: dict[str, Any], encode: Callable[[dict[str, Any]], dict[str, Any]]
    ) -> dict[str, Any]:
        positions = inputs.pop(MLM_POSITIONS)
        outputs = encode(inputs)
        masked = gather_positions(outputs["sequence_output"], positions)
        table = self.encoder.embeddings.word_embeddings.embeddings
        del outputs["default"]
        return {**outputs, "mlm_logits": self.mlm_head(masked, table)}

    def compute_output_spec(self, inputs: Mapping[str, Any], training: bool | None = None) -> dict[str, Any]:
        """Shapes and dtypes of the outputs for symbolic inputs."""
        outputs = self.encoder.compute_output_spec(inputs)
        del outputs["default"]
        shape = (*inputs[MLM_POSITIONS].shape, self.encoder.config.vocab_size)
        return {**outputs, "mlm_logits": keras.KerasTensor(shape, dtype=self.compute_dtype)}

    def get_config(self) -> dict[str, Any]:
        """What `from_config` rebuilds the layer from."""
        return {**super().get_config(), "encoder": keras.saving.serialize_keras_object(self.encoder)}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> MaskedLMEncoder:
        """Rebuild the layer, encoder included."""
        return cls(keras.saving.deserialize_keras_object(config.pop("encoder")), **config)
