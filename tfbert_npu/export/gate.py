"""The gate: nothing leaves an export whose simulated outputs are not those of the model."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tfbert_npu.errors import TfbertNpuError

MIN_COSINE = {"fp16": 0.9999, "w8a16": 0.999, "w8a8": 0.99, "w4a16": 0.95}
"""Least cosine that an output may have by default, for each precision."""


class GateError(TfbertNpuError):
    """A compiled model's outputs are not those of the model; the message says where the evidence is."""


def activation_ranges(onnx_path: str, feeds: Sequence[np.ndarray]) -> dict[str, float]:
    """Largest absolute value of every product, sum and normalization, by onnxruntime in float32.

    Args:
        onnx_path: The model.
        feeds: Its inputs, in its order.

    Returns:
        Operator name -> largest absolute value, without the masked attention scores, which hold the mask's
        -1e4 by design.
    """
    import onnx
    import onnxruntime

    model = onnx.load(onnx_path)
    wanted = {
        node.output[0]: node.name
        for node in model.graph.node
        if node.op_type in ("MatMul", "Add", "LayerNormalization")
        and not node.name.startswith(("attention_bias", "causal_bias"))
        and not node.name.endswith(".scores/Add")
    }
    known = {output.name for output in model.graph.output}
    for value in wanted.keys() - known:
        model.graph.output.append(onnx.helper.make_tensor_value_info(value, onnx.TensorProto.FLOAT, None))
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    names = [value.name for value in session.get_inputs()]
    values = session.run(list(wanted), dict(zip(names, feeds, strict=True)))
    return {
        name: float(np.max(np.abs(value), initial=0.0))
        for name, value in zip(wanted.values(), values, strict=True)
    }
