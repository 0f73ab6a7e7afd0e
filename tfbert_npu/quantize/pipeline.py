"""From a model and calibration batches to a compiled int8 file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from tfbert_npu.export.source import ExportSource
from tfbert_npu.heads import ENCODER
from tfbert_npu.onnx.model import GraphOptions, write_graph
from tfbert_npu.quantize.activations import Activations, record
from tfbert_npu.quantize.grid import Grid
from tfbert_npu.quantize.hybrid import Document, HybridModel, Ranges, ranges_of
from tfbert_npu.quantize.recipe import Recipe
from tfbert_npu.quantize.rounding import gptq, round_weights
from tfbert_npu.rknn.compiler import Signature, vendor_arguments
from tfbert_npu.rknn.cost import Cost, cost_at
from tfbert_npu.rknn.options import RknnOptions, Shape
from tfbert_npu.rknn.worker import VendorSession

Batches = Sequence[Mapping[str, np.ndarray]]


@dataclass(frozen=True)
class Transformed:
    """A model after the transforms, with the ranges of its activations."""

    source: ExportSource
    """The model with another state, equal to the original in exact arithmetic."""
    ranges: Ranges


@dataclass(frozen=True)
class Quantized(Transformed):
    """A model made ready for int8: its weights are rounded as the recipe says."""

    recipe: Recipe


def quantize(source: ExportSource, recipe: Recipe, calibration: Batches) -> Quantized:
    """Apply a recipe's transforms, find the ranges of activations, and round the weights.

    Args:
        source: The model.
        recipe: How.
        calibration: Batches of int32 [B, S] under TF-Hub's input names.
    """
    transformed, seen = transform(source, recipe, calibration)
    state = rounded_state(transformed, recipe, seen)
    return Quantized(replace(transformed.source, state=state), transformed.ranges, recipe)


def transform(source: ExportSource, recipe: Recipe, calibration: Batches) -> tuple[Transformed, Activations]:
    """Apply a recipe's transforms; see `quantize`.

    Returns:
        The model, and what it was seen to compute on the calibration texts.
    """
    state = recipe.apply(source.state, source.config, _seen(source, calibration))
    transformed = replace(source, state=state)
    seen = _seen(transformed, calibration)
    return Transformed(transformed, ranges_of(seen, recipe)), seen


def rounded_state(model: Transformed, recipe: Recipe, seen: Activations) -> dict[str, np.ndarray]:
    """The state of a transformed model with its int8 products' weights rounded as the recipe says.

    Raises:
        ValueError: The recipe leaves the ranges to the vendor, and rounding needs them.
    """
    if recipe.rounding == "nearest":
        return model.source.state
    if not model.ranges:
        raise ValueError('rounding="gptq" needs ranges of ours; give ranges="mse" or rounding="nearest"')
    return round_weights(model.source.state, model.source.config, seen, model.ranges, recipe.float16)


def round_products(source: ExportSource, grid: Grid, calibration: Batches) -> ExportSource:
    """The model with the weights of its products on a grid, for inputs that stay in float16.

    Args:
        source: The model.
        grid: The compiler's.
        calibration: As for `quantize`.
    """
    config, seen = source.config, _seen(source, calibration)
    state = round_weights(source.state, config, seen, None, grid=grid)
    pooler = "pooler.dense.weight"
    if pooler in state and grid.fits(state[pooler]):
        last = seen[f"encoder.layer.{config.num_hidden_layers - 1}.output.LayerNorm"]
        state[pooler] = gptq(state[pooler], last, grid)
    return replace(source, state=state)


def compile_int8(
    session: VendorSession,
    onnx_path: Path,
    signature: Signature,
    options: RknnOptions,
    shapes: Sequence[Shape],
    custom_string: str,
    calibration: Batches,
    quantized: Quantized,
) -> tuple[dict[Shape, Cost], Document]:
    """As `compiler.compile_file`, by hybrid quantization.

    Args:
        session: The vendor's process; it then simulates and exports.
        onnx_path: The graph of `quantized.source`.
        signature: Its inputs and outputs.
        options: How.
        shapes: One (batch, length).
        custom_string: Put into the file.
        calibration: Batches of that shape under the graph's input names.
        quantized: Recipe and ranges.

    Returns:
        The compiler's cost of the shape, and the `HybridModel.document` that was built.

    Raises:
        ValueError: Several shapes.
    """
    if len(shapes) > 1:
        raise ValueError('int8 files hold one shape each; give layout="static" for several')
    vendor, load = vendor_arguments(signature, options, shapes, custom_string)
    vendor["quantized_dtype"] = options.precision
    model = HybridModel(session, onnx_path, signature, quantized.source.config, vendor, load, calibration)
    costs = model.build(quantized.recipe, quantized.ranges)
    return {shape: cost_at(costs, shape) for shape in shapes}, model.document


def _seen(source: ExportSource, calibration: Batches) -> Activations:
    """Activations of the encoder alone; what stands on it is not quantized."""
    graph = write_graph(source.config, source.state, ENCODER, GraphOptions(outputs=("sequence_output",)))
    return record(graph, source.config, calibration)
