"""How a model is quantized: which transforms, which ranges, which products stay in float16."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np

from tfbert_npu.config import BertConfig
from tfbert_npu.quantize import transforms
from tfbert_npu.quantize.activations import Activations
from tfbert_npu.quantize.ranges import Method

Product = Literal["query", "key", "value", "attention_output", "up", "down"]
"""A product with weights in a layer; `"up"` and `"down"` are those of the feed-forward block."""

Rounding = Literal["gptq", "nearest"]

_SCOPES: dict[str, tuple[str, ...]] = {
    "query": (".attention.self.query",),
    "key": (".attention.self.key",),
    "value": (".attention.self.value",),
    "attention_output": (".attention.output.dense", ".attention.self.context"),
    "up": (".intermediate.dense", ".intermediate"),
    "down": (".output.dense",),
}


@dataclass(frozen=True, order=True)
class Operator:
    """One product of one layer."""

    layer: int
    product: Product

    @property
    def scopes(self) -> tuple[str, ...]:
        """Scopes of its operators in the graph."""
        return tuple(f"encoder.layer.{self.layer}{scope}" for scope in _SCOPES[self.product])

    @property
    def weights(self) -> str:
        """Its weights' name in a state, without `.weight`."""
        return self.scopes[0]

    @property
    def reads(self) -> str:
        """The point (`activations.points`) that it reads."""
        name = f"encoder.layer.{self.layer}"
        if self.product in ("query", "key", "value"):
            return (
                f"encoder.layer.{self.layer - 1}.output.LayerNorm" if self.layer else "embeddings.LayerNorm"
            )
        return (
            name
            + {
                "attention_output": ".attention.self.context",
                "up": ".attention.output.LayerNorm",
                "down": ".intermediate",
            }[self.product]
        )


def operators(config: BertConfig) -> tuple[Operator, ...]:
    """Every product with weights in the stack; all of them are int8 unless a recipe keeps them."""
    return tuple(
        Operator(layer, product) for layer in range(config.num_hidden_layers) for product in get_args(Product)
    )


def last_block(config: BertConfig) -> frozenset[Operator]:
    """The products of the last layer's feed-forward block, which `export_rknn` keeps in float16.

    Nothing of a later layer levels what goes wrong there: with it in float16 the worst of 200 texts had a
    sequence cosine of 0.9970 instead of 0.9951 (MiniLM), for 0.055 of float16's cycles.
    """
    layer = config.num_hidden_layers - 1
    return frozenset((Operator(layer, "up"), Operator(layer, "down")))


@dataclass(frozen=True)
class Recipe:
    """One way to quantize a model.

    Embeddings, residual connections, LayerNorms, the attention's core and what stands on the encoder are
    always in float16: the compiler counts no cycles for them, or few.
    """

    embeddings: bool = True
    """Level the channels of the word table, which becomes int8 whatever else does."""
    smooth: bool = True
    """Move the range of LayerNorm's channels into the weights (SmoothQuant)."""
    alpha: float | None = None
    """SmoothQuant's exponent; None finds one for each LayerNorm."""
    branches: float | None = 1.0
    """Power of `transforms.level_branches`; None leaves it out."""
    norms: bool = True
    """Put gains and biases of LayerNorms on the int8 grid."""
    balance: bool = True
    """Balance values with the output projection and queries with keys."""
    side_neurons: int = 16
    """Neurons of each feed-forward block computed apart in float16."""
    ranges: Method = "mse"
    """How ranges of activations are chosen; `"vendor"` keeps the compiler's own, padding included."""
    rounding: Rounding = "gptq"
    """How weights are put on the int8 grid; `"nearest"` leaves it to the compiler."""
    float16: frozenset[Operator] = frozenset()
    """Products that stay in float16."""

    def apply(
        self, state: Mapping[str, np.ndarray], config: BertConfig, seen: Activations
    ) -> dict[str, np.ndarray]:
        """The state after the transforms, equal in exact arithmetic.

        Args:
            state: The model's.
            config: Its architecture.
            seen: Activations of the untransformed model.
        """
        out = transforms.level_word_embeddings(state) if self.embeddings else dict(state)
        if self.balance:
            out = transforms.balance_values(out, config, seen)
            out = transforms.balance_queries_and_keys(out, config, seen)
        if self.smooth:
            out = transforms.smooth_layer_norms(out, config, seen, self.alpha)
        out, seen = transforms.split_off_neurons(out, config, seen, self.side_neurons)
        if self.branches is not None:
            out = transforms.level_branches(out, config, seen, self.branches)
        if self.norms:
            out = transforms.fit_layer_norms(out, config)
        return out

    def as_dict(self) -> dict[str, Any]:
        """As plain JSON."""
        values = dataclasses.asdict(self)
        values["float16"] = [f"{one.layer}.{one.product}" for one in sorted(self.float16)]
        return values

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Recipe:
        """Read `as_dict`.

        Raises:
            ValueError: A field or product is unknown.
        """
        known = {field.name for field in dataclasses.fields(cls)}
        strange = sorted(set(values) - known)
        if strange:
            raise ValueError(f"a recipe has no {', '.join(strange)}; known are {', '.join(sorted(known))}")
        kept = set()
        for text in values.get("float16", ()):
            layer, _, product = str(text).partition(".")
            if not layer.isdecimal() or product not in get_args(Product):
                raise ValueError(f"{text!r} is no product such as '0.down'; products are {get_args(Product)}")
            kept.add(Operator(int(layer), product))  # type: ignore[arg-type]
        return cls(**{**values, "float16": frozenset(kept)})
