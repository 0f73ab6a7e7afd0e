"""From weights and calibration batches to a plan: what int8 does to a model, before any compiler sees it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from tfbert_npu.checkpoints.state import State
from tfbert_npu.config import BertConfig
from tfbert_npu.heads import ENCODER
from tfbert_npu.onnx.model import GraphOptions, write_graph
from tfbert_npu.quantize.activations import Activations, record
from tfbert_npu.quantize.grid import Grid
from tfbert_npu.quantize.ranges import Ranges, activation_range
from tfbert_npu.quantize.recipe import Recipe
from tfbert_npu.quantize.rounding import gptq, round_weights

Batches = Sequence[Mapping[str, np.ndarray]]


@dataclass(frozen=True)
class Transformed:
    """Weights after the transforms, with the ranges of the activations."""

    config: BertConfig
    state: State
    """Equal to the original in exact arithmetic."""
    ranges: Ranges


@dataclass(frozen=True)
class Plan(Transformed):
    """All that int8 needs to know of a model: its weights are rounded as the recipe says."""

    recipe: Recipe


def plan(config: BertConfig, state: State, recipe: Recipe, calibration: Batches) -> Plan:
    """Apply a recipe's transforms, find the ranges of activations, and round the weights.

    Args:
        config: The architecture.
        state: The weights, see `weights.names`.
        recipe: How.
        calibration: Batches of int32 [B, S] under TF-Hub's input names.

    Raises:
        ValueError: As for `rounded_state`.
    """
    transformed, seen = transform(config, state, recipe, calibration)
    return Plan(config, rounded_state(transformed, recipe, seen), transformed.ranges, recipe)


def transform(
    config: BertConfig, state: State, recipe: Recipe, calibration: Batches
) -> tuple[Transformed, Activations]:
    """Apply a recipe's transforms; see `plan`.

    Returns:
        The weights, and what the model was seen to compute with them on the calibration texts.
    """
    state = recipe.apply(state, config, _seen(config, state, calibration))
    seen = _seen(config, state, calibration)
    return Transformed(config, state, ranges_of(seen, recipe)), seen


def ranges_of(seen: Activations, recipe: Recipe) -> dict[str, tuple[float, float]]:
    """Range of every point of the transformed graph; none if the recipe leaves them to the vendor."""
    if recipe.ranges == "vendor":
        return {}
    return {point: activation_range(values, recipe.ranges) for point, values in seen.items()}


def rounded_state(model: Transformed, recipe: Recipe, seen: Activations) -> State:
    """The weights with those of the int8 products rounded as the recipe says.

    Raises:
        ValueError: The recipe leaves the ranges to the vendor, and rounding needs them.
    """
    if recipe.rounding == "nearest":
        return model.state
    if not model.ranges:
        raise ValueError('rounding="gptq" needs ranges of ours; give ranges="mse" or rounding="nearest"')
    return round_weights(model.state, model.config, seen, model.ranges, recipe.float16)


def round_products(config: BertConfig, state: State, grid: Grid, calibration: Batches) -> State:
    """The weights with those of the products on a grid, for inputs that stay in float16.

    Args:
        config: The architecture.
        state: The weights.
        grid: The compiler's.
        calibration: As for `plan`.
    """
    seen = _seen(config, state, calibration)
    rounded = round_weights(state, config, seen, None, grid=grid)
    pooler = "pooler.dense.weight"
    if pooler in rounded and grid.fits(rounded[pooler]):
        last = seen[f"encoder.layer.{config.num_hidden_layers - 1}.output.LayerNorm"]
        rounded[pooler] = gptq(rounded[pooler], last, grid)
    return rounded


def _seen(config: BertConfig, state: State, calibration: Batches) -> Activations:
    """Activations of the encoder alone; what stands on it is not quantized."""
    graph = write_graph(config, state, ENCODER, GraphOptions(outputs=("sequence_output",)))
    return record(graph, config, calibration)
