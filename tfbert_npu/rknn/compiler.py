"""One .rknn file: compiled, simulated, written."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tfbert_npu.artifact.manifest import TensorSpec
from tfbert_npu.rknn.cost import Cost, cost_at, parse_costs
from tfbert_npu.rknn.options import RknnOptions, Shape
from tfbert_npu.rknn.worker import VendorSession

_MOST_CUSTOM_BYTES = 1024
"""The size of the runtime's buffer for it (rknn_api.h, rknn_custom_string)."""


@dataclass(frozen=True)
class Signature:
    """Inputs and outputs of a graph, -1 where batch and length go."""

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]

    @classmethod
    def of(cls, model: Any) -> Signature:
        """The signature of an ONNX model whose dynamic dimensions are named."""
        import onnx

        def specs(values: Any) -> tuple[TensorSpec, ...]:
            return tuple(
                TensorSpec(
                    value.name,
                    np.dtype(onnx.helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type)).name,
                    tuple(-1 if dim.dim_param else dim.dim_value for dim in value.type.tensor_type.shape.dim),
                )
                for value in values
            )

        return cls(specs(model.graph.input), specs(model.graph.output))

    def input_shapes(self, shape: Shape) -> list[list[int]]:
        """The inputs' shapes at one (batch, length)."""
        return [list(spec.at(shape)) for spec in self.inputs]


def compile_file(
    session: VendorSession,
    onnx_path: Path,
    signature: Signature,
    options: RknnOptions,
    shapes: Sequence[Shape],
    custom_string: str,
) -> dict[Shape, Cost]:
    """Compile the ONNX file for some shapes; the session then simulates and exports it.

    Args:
        session: The vendor's process.
        onnx_path: Graph with dynamic batch and length.
        signature: Its inputs and outputs.
        options: How.
        shapes: For which shapes; several make a dynamic file.
        custom_string: Put into the file.

    Returns:
        The compiler's cost of each shape.
    """
    config, load = vendor_arguments(signature, options, shapes, custom_string)
    build: dict[str, Any] = {"do_quantization": False}
    grid = options.weight_grid
    if grid is not None:
        config["quantized_dtype"] = options.precision
        config["quantized_method"] = "channel" if grid.group is None else f"group{grid.group}"
        # The vendor wants a sample, and what it holds does not matter: inputs of products stay in float16.
        sizes = signature.input_shapes(max(shapes, key=lambda shape: shape[0] * shape[1]))
        sample = [np.ones(size, spec.dtype) for spec, size in zip(signature.inputs, sizes, strict=True)]
        build = {"do_quantization": True, "dataset": str(session.write_dataset([sample]))}
    costs = parse_costs(session.build(onnx_path, config, load=load, build=build))
    return {shape: cost_at(costs, shape) for shape in shapes}


def vendor_arguments(
    signature: Signature, options: RknnOptions, shapes: Sequence[Shape], custom_string: str
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Arguments of the vendor's `RKNN.config`, and further ones of `RKNN.load_onnx`."""
    config: dict[str, Any] = {
        "target_platform": options.platform.target,
        "optimization_level": options.optimization_level,
        "custom_string": custom_string,
        **options.compiler,
    }
    if options.single_core:
        config["single_core_mode"] = True
    load: dict[str, Any] = {}
    if len(shapes) > 1:
        config["dynamic_input"] = [signature.input_shapes(shape) for shape in shapes]
    else:
        load["inputs"] = [spec.name for spec in signature.inputs]
        load["input_size_list"] = signature.input_shapes(shapes[0])
    return config, load


def simulate(
    session: VendorSession, signature: Signature, batch: Mapping[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """Outputs of the compiled file in the simulator, float32, by name."""
    values = session.infer(ordered(signature, batch))
    return {spec.name: value for spec, value in zip(signature.outputs, values, strict=True)}


def ordered(signature: Signature, batch: Mapping[str, np.ndarray]) -> list[np.ndarray]:
    """A batch as the list that the vendor takes: its order, its dtypes."""
    return [np.ascontiguousarray(batch[spec.name], spec.dtype) for spec in signature.inputs]


def custom_string(content: Mapping[str, Any]) -> str:
    """What the runtime needs if only the .rknn file is at hand, as JSON.

    Raises:
        ValueError: It is longer than the runtime can read.
    """
    text = json.dumps(content, separators=(",", ":"), ensure_ascii=False)
    if len(text.encode()) >= _MOST_CUSTOM_BYTES:
        raise ValueError(
            f"custom_string has {len(text.encode())} bytes and the runtime reads {_MOST_CUSTOM_BYTES - 1}; "
            "shorten it"
        )
    return text
