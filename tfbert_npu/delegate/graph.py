"""Parts of a delegated layer's graph: the py_function, and what must not pass through it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from tfbert_npu.config import BertConfig
from tfbert_npu.inputs import MLM_POSITIONS, WORD_IDS

HIDDEN_STATE = "encoder_outputs_"


def py_function(
    compute: Callable[..., list[np.ndarray]],
    inputs: Mapping[str, Any],
    given: Sequence[str],
    config: BertConfig,
    tripwire: Any,
) -> list[Any]:
    """`compute` as an operator, its outputs of the shapes that are known when the graph is traced.

    Args:
        compute: Takes eager tensors in the order of `inputs` and gives a float32 array for each output.
        inputs: Tensors [B, S] by name.
        given: Names of the outputs; hidden states are `encoder_outputs_0`, ...
        config: The encoder's.
        tripwire: See `make_tripwire`.
    """
    import tensorflow as tf

    tf.raw_ops.VarIsInitializedOp(resource=tripwire.handle)
    values: list[Any] = tf.py_function(
        compute, list(inputs.values()), [tf.float32] * len(given), name="delegated"
    )
    for name, value in zip(given, values, strict=True):
        value.set_shape(output_shape(name, inputs, config))
    return values


def make_tripwire() -> Any:
    """A variable that nothing tracks: TensorFlow refuses to save a graph that captures it."""
    import tensorflow as tf

    with tf.init_scope():
        return tf.Variable(0, trainable=False, name="runs_on_an_NPU_undelegate_before_saving")


def output_shape(name: str, inputs: Mapping[str, Any], config: BertConfig) -> tuple[int | None, ...]:
    """What is known of an output's shape, from the inputs'."""
    batch, length = inputs[WORD_IDS].shape
    if name == "mlm_logits":
        return (*inputs[MLM_POSITIONS].shape, config.vocab_size)
    if name == "pooled_output":
        return (batch, config.hidden_size)
    return (batch, length, config.hidden_size)


def without_gradient(anchor: Any, values: list[Any]) -> list[Any]:
    """The values as if they came from the encoder's weights, with an error for whoever asks for the gradient.

    Without it a gradient would be None, or 0, and training would silently leave the encoder as it is.

    Args:
        anchor: A variable of the encoder that training would change, or None if there is none.
        values: Outputs.
    """
    if anchor is None:
        return values
    import tensorflow as tf

    @tf.custom_gradient
    def passed(weight: Any) -> Any:
        def gradient(*upstream: Any) -> Any:
            raise ValueError(
                "there is no gradient through an encoder that runs on an NPU; call .undelegate() to train "
                "it, or set encoder.trainable = False to train what stands on it"
            )

        return [tf.identity(value) for value in values], gradient

    return list(passed(tf.convert_to_tensor(anchor)))
