"""One ONNX graph, compiled: all that the vendor's compiler is told is put together here."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tfbert_npu.config import BertConfig
from tfbert_npu.onnx.signature import Signature
from tfbert_npu.quantize.plan import Batches, Plan
from tfbert_npu.rknn.cost import Cost, cost_at, parse_costs
from tfbert_npu.rknn.hybrid import Document, HybridModel
from tfbert_npu.rknn.options import RknnOptions, Shape
from tfbert_npu.rknn.worker import VendorSession

_MOST_CUSTOM_BYTES = 1024
"""The size of the runtime's buffer for it (rknn_api.h, rknn_custom_string)."""


@dataclass(frozen=True)
class Compiler:
    """Compiles a graph in sessions of the vendor's process; these then simulate and export it.

    Args:
        onnx_path: Graph with dynamic batch and length.
        signature: Its inputs and outputs.
        options: How.
        config: The model's architecture.
        custom_string: Put into the file.
    """

    onnx_path: Path
    signature: Signature
    options: RknnOptions
    config: BertConfig
    custom_string: str = ""

    def compile(
        self,
        session: VendorSession,
        shapes: Sequence[Shape],
        plan: Plan | None = None,
        calibration: Batches = (),
    ) -> tuple[dict[Shape, Cost], Document | None]:
        """Compile for some shapes; several make a dynamic file.

        Args:
            session: The vendor's process.
            shapes: For which.
            plan: For int8: of the weights that the graph holds.
            calibration: For int8: batches of the shape under the graph's input names.

        Returns:
            The compiler's cost of each shape, and for int8 the `HybridModel.document` that was built.

        Raises:
            ValueError: Several shapes in int8.
        """
        if plan is not None:
            model = self.hybrid(session, shapes, calibration)
            costs, document = model.build(plan.recipe, plan.ranges), model.document
        else:
            costs, document = self._build(session, shapes), None
        return {shape: cost_at(costs, shape) for shape in shapes}, document

    def hybrid(self, session: VendorSession, shapes: Sequence[Shape], calibration: Batches) -> HybridModel:
        """The graph after the first step of the vendor's hybrid quantization.

        Raises:
            ValueError: Several shapes.
        """
        if len(shapes) > 1:
            raise ValueError('int8 files hold one shape each; give layout="static" for several')
        vendor, load = self.arguments(shapes)
        vendor["quantized_dtype"] = self.options.precision
        return HybridModel(session, self.onnx_path, self.signature, self.config, vendor, load, calibration)

    def _build(self, session: VendorSession, shapes: Sequence[Shape]) -> list[Cost]:
        vendor, load = self.arguments(shapes)
        build: dict[str, Any] = {"do_quantization": False}
        grid = self.options.weight_grid
        if grid is not None:
            vendor["quantized_dtype"] = self.options.precision
            vendor["quantized_method"] = "channel" if grid.group is None else f"group{grid.group}"
            # The vendor wants a sample, and what it holds does not matter: inputs of products stay float16.
            sizes = self.signature.input_shapes(max(shapes, key=lambda shape: shape[0] * shape[1]))
            inputs = zip(self.signature.inputs, sizes, strict=True)
            sample = [np.ones(size, spec.dtype) for spec, size in inputs]
            build = {"do_quantization": True, "dataset": str(session.write_dataset([sample]))}
        return parse_costs(session.build(self.onnx_path, vendor, load=load, build=build))

    def arguments(self, shapes: Sequence[Shape]) -> tuple[dict[str, Any], dict[str, Any]]:
        """Arguments of the vendor's `RKNN.config`, and further ones of `RKNN.load_onnx`."""
        vendor: dict[str, Any] = {
            "target_platform": self.options.platform.target,
            "optimization_level": self.options.optimization_level,
            "custom_string": self.custom_string,
            **self.options.compiler,
        }
        if self.options.single_core:
            vendor["single_core_mode"] = True
        if len(shapes) > 1:
            vendor["dynamic_input"] = [self.signature.input_shapes(shape) for shape in shapes]
            return vendor, {}
        names = [spec.name for spec in self.signature.inputs]
        return vendor, {"inputs": names, "input_size_list": self.signature.input_shapes(shapes[0])}


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
