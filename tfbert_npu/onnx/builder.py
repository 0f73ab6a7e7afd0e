"""A thin layer over `onnx.helper`: named nodes in order, initializers stored once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from tfbert_npu.errors import require

require("onnx", "export")
import onnx  # noqa: E402 - its absence is said above
from onnx import TensorProto, helper, numpy_helper  # noqa: E402

OPSET = 17
"""First opset with LayerNormalization; rknn-toolkit2 2.5.0 takes 13 to 19 and rejects 20."""

IR_VERSION = 8
"""The ONNX file format that came with opset 17: readers as old as that opset can open the file."""

Dim = int | str


class GraphBuilder:
    """Collects nodes, initializers, inputs and outputs, and makes a checked model of them.

    A value is known by its name. Nodes are named by `scope/op_type`, because the compiler's report and its
    accuracy analysis name operators so.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._nodes: list[onnx.NodeProto] = []
        self._initializers: dict[str, onnx.TensorProto] = {}
        self._inputs: list[onnx.ValueInfoProto] = []
        self._outputs: list[onnx.ValueInfoProto] = []
        self._output_of: dict[str, str] = {}
        self._taken: set[str] = set()

    def input(self, name: str, dtype: type[np.generic], shape: Sequence[Dim]) -> str:
        """Declare a graph input; inputs keep the order of declaration."""
        self._inputs.append(helper.make_tensor_value_info(name, _elem_type(dtype), list(shape)))
        return name

    def output(self, name: str, value: str, shape: Sequence[Dim]) -> None:
        """Declare `value` a float32 output under `name`; outputs keep the order of declaration."""
        first = self._output_of.setdefault(value, name)
        if first == name:
            self._rename(value, name)
        else:  # one value under two names
            self._nodes.append(helper.make_node("Identity", [first], [name], name=f"{name}/Identity"))
        self._outputs.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, list(shape)))

    def constant(self, name: str, value: np.ndarray | float | Sequence[int]) -> str:
        """Store an initializer under `name`, once; floats become float32 and whole numbers int64."""
        array = np.asarray(value)
        if array.dtype == np.float64:
            array = array.astype(np.float32)
        tensor = numpy_helper.from_array(np.ascontiguousarray(array).reshape(array.shape), name)
        known = self._initializers.setdefault(name, tensor)
        if known is not tensor and known.SerializeToString() != tensor.SerializeToString():
            raise ValueError(f"initializer {name} is defined twice with different values")
        return name

    def shape_of(self, name: str) -> list[Dim]:
        """Declared shape of the graph input `name`; dynamic dimensions are strings."""
        dims = self._input(name).type.tensor_type.shape.dim
        return [dim.dim_param or dim.dim_value for dim in dims]

    def op(self, op_type: str, scope: str, *inputs: str, **attributes: Any) -> str:
        """Append a node with one output and return the name of its output."""
        return self.ops(op_type, scope, inputs, 1, **attributes)[0]

    def ops(
        self, op_type: str, scope: str, inputs: Sequence[str], outputs: int, **attributes: Any
    ) -> list[str]:
        """Append a node with several outputs and return their names."""
        name, number = f"{scope}/{op_type}", 1
        while name in self._taken:
            name, number = f"{scope}/{op_type}_{number}", number + 1
        self._taken.add(name)
        values = [f"{name}:{index}" for index in range(outputs)]
        self._nodes.append(helper.make_node(op_type, list(inputs), values, name=name, **attributes))
        return values

    def model(self) -> onnx.ModelProto:
        """The finished model without nodes of no effect, after `onnx.checker` with full shape inference.

        Raises:
            onnx.checker.ValidationError: The graph is not valid ONNX.
        """
        nodes = self._used()
        read = {value for node in nodes for value in node.input} | {info.name for info in self._outputs}
        constants = [tensor for name, tensor in self._initializers.items() if name in read]
        graph = helper.make_graph(nodes, self._name, self._inputs, self._outputs, constants)
        model = helper.make_model(
            graph,
            producer_name="tfbert-npu",
            opset_imports=[helper.make_opsetid("", OPSET)],
            ir_version=IR_VERSION,
        )
        onnx.checker.check_model(model, full_check=True)
        return model

    def _used(self) -> list[onnx.NodeProto]:
        wanted = {info.name for info in self._outputs}
        used = []
        for node in reversed(self._nodes):
            if wanted.intersection(node.output):
                used.append(node)
                wanted.update(node.input)
        return used[::-1]

    def _input(self, name: str) -> onnx.ValueInfoProto:
        return next(info for info in self._inputs if info.name == name)

    def _rename(self, value: str, name: str) -> None:
        for node in self._nodes:
            for names in (node.input, node.output):
                for index, current in enumerate(names):
                    if current == value:
                        names[index] = name


def _elem_type(dtype: type[np.generic]) -> int:
    return helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
