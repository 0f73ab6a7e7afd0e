"""Compiles a graph with some operators in float16 and the rest in int8: the vendor's hybrid quantization.

Step 1 writes a YAML file with a range for every tensor; it is edited here, and step 2 builds from it. Only
operators may be named for float16, constants not; of a range, `min` and `max` may be changed, and the scale
follows.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypedDict

import numpy as np
import yaml

from tfbert_npu.config import BertConfig
from tfbert_npu.onnx.signature import Signature
from tfbert_npu.quantize.activations import points
from tfbert_npu.quantize.ranges import Ranges
from tfbert_npu.quantize.recipe import Recipe, operators
from tfbert_npu.rknn.cost import Cost, parse_costs
from tfbert_npu.rknn.worker import VendorSession

_CONSTANT = re.compile(r"_i\d+$")
"""The compiler's own constants, such as `scope/Div_2mul_i1`, the factor that it makes of a division."""


class Document(TypedDict):
    """How a graph was quantized, see `HybridModel.document`."""

    float16: list[str]
    ranges: dict[str, tuple[list[float], list[float]]]


def document_name(rknn: str) -> str:
    """Name of the file in an artifact that says how one of its .rknn files was quantized."""
    return f"{rknn.removesuffix('.rknn')}.quantization.json"


class HybridModel:
    """A graph after step 1, which step 2 builds any number of times.

    Attributes:
        document: What was built last, as plain JSON: `"float16"`, the names of these tensors, and `"ranges"`,
            name to minima and maxima. With the graph it is all that another object's `build_from` needs,
            whatever it was calibrated with.

    Args:
        session: The vendor's process; it is this object's alone.
        onnx_path: The graph.
        signature: Its inputs and outputs.
        config: Its architecture.
        vendor: Arguments of `RKNN.config`.
        load: Further arguments of `RKNN.load_onnx`.
        calibration: Batches by input name.
    """

    def __init__(
        self,
        session: VendorSession,
        onnx_path: Path,
        signature: Signature,
        config: BertConfig,
        vendor: Mapping[str, Any],
        load: Mapping[str, Any],
        calibration: Sequence[Mapping[str, np.ndarray]],
    ) -> None:
        self._session = session
        self._config = config
        self._ends = tuple(spec.name for spec in (*signature.inputs, *signature.outputs))
        samples = [signature.ordered(batch) for batch in calibration]
        self._files = session.hybrid_step1(onnx_path, vendor, samples, load=load, proposal=False)
        self._draft: dict[str, Any] = yaml.load(self._files.config.read_text(encoding="utf-8"), _Loader)
        self.document: Document = {"float16": [], "ranges": {}}

    def build(self, recipe: Recipe, ranges: Ranges) -> list[Cost]:
        """Build with the products that the recipe keeps in float16; the session then simulates and exports.

        Returns:
            The compiler's cost of every shape.
        """
        parameters = self._draft["quantize_parameters"]
        chosen = {}
        for name, value in parameters.items():
            if value["dtype"] != "int8":
                continue
            point = _point_of(name, self._config)
            # Of a float16 tensor too: its range is that of the conversion to int8 behind it.
            low, high = ranges.get(point, (value["min"], value["max"]))
            chosen[name] = (np.ravel(low).tolist(), np.ravel(high).tolist())
        float16 = sorted(float16_tensors(parameters, self._config, recipe, self._ends))
        return self.build_from({"float16": float16, "ranges": chosen})

    def build_from(self, document: Document) -> list[Cost]:
        """Build what a `document` says; otherwise as `build`.

        Raises:
            ValueError: It is another graph's.
        """
        parameters = {name: dict(value) for name, value in self._draft["quantize_parameters"].items()}
        if not {*document["float16"], *document["ranges"]} <= parameters.keys():
            raise ValueError("the ranges are those of another graph or compiler; export the model again")
        for name, (low, high) in document["ranges"].items():
            parameters[name].update(min=low, max=high)
        self.document = document
        edited = {
            "custom_quantize_layers": dict.fromkeys(document["float16"], "float16"),
            "quantize_parameters": parameters,
        }
        text = yaml.dump(edited, Dumper=_Dumper, sort_keys=False)
        self._files.config.write_text(text, encoding="utf-8")
        return parse_costs(self._session.hybrid_step2(self._files))


def float16_tensors(
    parameters: Mapping[str, Mapping[str, Any]], config: BertConfig, recipe: Recipe, ends: Sequence[str]
) -> set[str]:
    """The tensors of the vendor's YAML that must be float16: all but those of the int8 products.

    Args:
        parameters: `quantize_parameters` of the file.
        config: The architecture.
        recipe: Which products stay in float16.
        ends: Names of the graph's inputs and outputs. Unless it is told about `sequence_output_int8`, which
            is nowhere in the graph, the vendor hands out float32 numbers that are 256 different ones.
    """
    int8 = {scope for one in operators(config) if one not in recipe.float16 for scope in one.scopes}
    found = set()
    for name, value in parameters.items():
        if value["dtype"] != "int8":
            continue
        if "/" not in name:
            # Our operators are named scope/type; a name without a slash is a constant, or at an end.
            if name.startswith(tuple(f"{end}{mark}" for end in ends for mark in "-_")):
                found.add(name)
            continue
        scope = name.partition("/")[0]
        if _CONSTANT.search(name):
            continue
        # Of the weights of a softmax int8 would leave nothing but the largest. Where the attention is no
        # operator of its own, its second product is a MatMul.
        in_core = scope.endswith(".self.context") and ("sdpa" in name or "/MatMul" in name)
        if scope not in int8 or in_core:
            found.add(name)
    return found


def _point_of(tensor: str, config: BertConfig) -> str:
    """The point that a tensor of the vendor's YAML is at, or an empty string."""
    scope = tensor.partition("/")[0]
    inside_core = "2sdpa_" in tensor  # scores and weights of the attention
    return scope if "/" in tensor and not inside_core and scope in points(config) else ""


_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_Dumper: Any = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
