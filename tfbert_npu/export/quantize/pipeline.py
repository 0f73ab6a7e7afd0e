"""From a model and calibration batches to a compiled int8 file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from tfbert_npu.export.compiler import Signature, vendor_arguments
from tfbert_npu.export.cost import Cost, cost_at
from tfbert_npu.export.graph.model import GraphOptions, write_graph
from tfbert_npu.export.options import RknnOptions, Shape
from tfbert_npu.export.quantize.activations import Activations, record
from tfbert_npu.export.quantize.hybrid import Document, HybridModel, Ranges, ranges_of
from tfbert_npu.export.quantize.recipe import Recipe
from tfbert_npu.export.quantize.rounding import round_weights
from tfbert_npu.export.source import ExportSource
from tfbert_npu.export.worker import VendorSession

Batches = Sequence[Mapping[str, np.ndarray]]


@dataclass(frozen=True)
class Quantised:
    """A model made ready for int8."""

    source: ExportSource
    """The model with its transformed state, equal to the original in exact arithmetic but for the weights'
    rounding."""
    recipe: Recipe
    ranges: Ranges


def quantise(source: ExportSource, recipe: Recipe, calibration: Batches) -> Quantised:
    """Apply a recipe's transforms and find the ranges of activations.

    Args:
        source: The model.
        recipe: How.
        calibration: Batches of int32 [B, S] under TF-Hub's input names.
    """
    config = source.config
    state = recipe.apply(source.state, config, _seen(source, calibration))
    transformed = replace(source, state=state)
    seen = _seen(transformed, calibration)
    ranges = ranges_of(seen, recipe)
    if recipe.rounding == "gptq":
        if not ranges:
            raise ValueError('rounding="gptq" needs ranges of ours; give ranges="mse" or rounding="nearest"')
        state = round_weights(state, config, seen, ranges, recipe.float16)
        transformed = replace(source, state=state)
    return Quantised(transformed, recipe, ranges)


def compile_int8(
    session: VendorSession,
    onnx_path: Path,
    signature: Signature,
    options: RknnOptions,
    shapes: Sequence[Shape],
    custom_string: str,
    calibration: Batches,
    quantised: Quantised,
) -> tuple[dict[Shape, Cost], Document]:
    """As `compiler.compile_file`, by hybrid quantisation.

    Args:
        session: The vendor's process; it then simulates and exports.
        onnx_path: The graph of `quantised.source`.
        signature: Its inputs and outputs.
        options: How.
        shapes: One (batch, length).
        custom_string: Put into the file.
        calibration: Batches of that shape under the graph's input names.
        quantised: Recipe and ranges.

    Returns:
        The compiler's cost of the shape, and the `HybridModel.document` that was built.

    Raises:
        ValueError: Several shapes.
    """
    if len(shapes) > 1:
        raise ValueError('int8 files hold one shape each; give layout="static" for several')
    vendor, load = vendor_arguments(signature, options, shapes, custom_string)
    vendor["quantized_dtype"] = options.precision
    model = HybridModel(session, onnx_path, signature, quantised.source.config, vendor, load, calibration)
    costs = model.build(quantised.recipe, quantised.ranges)
    return {shape: cost_at(costs, shape) for shape in shapes}, model.document


def _seen(source: ExportSource, calibration: Batches) -> Activations:
    """Activations of the encoder alone; what stands on it is not quantised."""
    graph = write_graph(source.config, source.state, "encoder", GraphOptions(outputs=("sequence_output",)))
    return record(graph, source.config, calibration)
