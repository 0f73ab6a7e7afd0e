"""What every layer of the encoder shares: activation, initialiser, normalization, reproducible dropout."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import keras
from keras import ops

from tfbert_npu.config import Activation, BertConfig

_ACTIVATIONS: dict[Activation, Callable[[Any], Any]] = {
    "gelu": lambda x: keras.activations.gelu(x, approximate=False),
    "gelu_tanh": lambda x: keras.activations.gelu(x, approximate=True),
    "relu": keras.activations.relu,
    "silu": keras.activations.silu,
    "tanh": keras.activations.tanh,
    "linear": keras.activations.linear,
}


def activation(name: Activation) -> Callable[[Any], Any]:
    """The function of `BertConfig.hidden_act`."""
    return _ACTIVATIONS[name]


def initializer(config: BertConfig) -> keras.initializers.Initializer:
    """A fresh truncated normal of `initializer_range`, as google-research/bert initializes weights."""
    return keras.initializers.TruncatedNormal(stddev=config.initializer_range)


def dense(units: int, config: BertConfig, dtype: Any, name: str) -> keras.layers.Dense:
    """A linear layer with BERT's initialization."""
    return keras.layers.Dense(units, kernel_initializer=initializer(config), dtype=dtype, name=name)


def layer_norm(config: BertConfig, dtype: Any, name: str) -> keras.layers.LayerNormalization:
    """A LayerNorm over the last axis; Keras computes it in float32 under every mixed precision policy."""
    return keras.layers.LayerNormalization(epsilon=config.layer_norm_eps, dtype=dtype, name=name)


class DrawnSeed(keras.random.SeedGenerator):
    """A seed that has been drawn already: every use gives the same random numbers.

    Gradient checkpointing runs a block a second time for its gradient. A generator would have moved on by
    then and drop other units than the forward pass did.
    """

    def __init__(self, seed: Any) -> None:
        self._seed = seed  # deliberately no state variable of its own

    def next(self, ordered: bool = True) -> Any:
        """The drawn seed, uint32 or int32 [2]."""
        return self._seed


def dropout(x: Any, rate: float, seed: Any | None, salt: int) -> Any:
    """Drop a share of `x` and scale up the rest; without a seed give `x` back.

    Args:
        x: Any tensor.
        rate: Share to drop, in [0, 1).
        seed: Tensor [2] as `keras.random.SeedGenerator.next()` draws it, or None outside training.
        salt: Tells apart the dropouts that share one drawn seed.
    """
    if seed is None or rate == 0:
        return x
    salted = ops.add(seed, ops.cast(ops.array([salt, 0]), seed.dtype))
    return keras.random.dropout(x, rate, seed=DrawnSeed(salted))


def frozen_parts(layer: keras.layers.Layer) -> list[str]:
    """The parts of a layer that are not trained though the layer is, such as `"layer_0/attention"`.

    Keras saves the flag of a layer as a whole; what it holds it takes for trainable.
    """
    if not layer.trainable:
        return []  # the layer's own flag says it all
    found = []
    for part in layer._flatten_layers(include_self=False, recursive=False):
        if part.trainable:
            found += [f"{part.name}/{path}" for path in frozen_parts(part)]
        else:
            found.append(part.name)
    return found


def freeze_parts(layer: keras.layers.Layer, paths: Iterable[str]) -> None:
    """Freeze what `frozen_parts` found.

    Raises:
        ValueError: The layer has no such part.
    """
    parts = {part.name: part for part in layer._flatten_layers(include_self=False, recursive=False)}
    for path in paths:
        name, _, rest = path.partition("/")
        if name not in parts:
            raise ValueError(f"frozen names {name!r}; parts of {layer.name} are {', '.join(sorted(parts))}")
        if rest:
            freeze_parts(parts[name], [rest])
        else:
            parts[name].trainable = False
