"""What a float32 graph computes at real tokens: the values from which scales and ranges are chosen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx

from tfbert_npu.config import BertConfig

Activations = dict[str, np.ndarray]
"""Point -> float32 [tokens, channels], padding left out."""


def points(config: BertConfig) -> tuple[str, ...]:
    """Where activations are quantized: the inputs and outputs of every product with weights in the stack.

    A LayerNorm goes by its own name, a product's output by the name of its dense layer, the attention's
    context by `...self.context`, and the inner layer of a feed-forward block by `...intermediate`.
    """
    names = ["embeddings.LayerNorm"]
    for layer in range(config.num_hidden_layers):
        name = f"encoder.layer.{layer}"
        names += [f"{name}.attention.self.{part}" for part in ("query", "key", "value", "context")]
        names += [f"{name}.attention.output.dense", f"{name}.attention.output.LayerNorm"]
        names += [f"{name}.intermediate", f"{name}.output.dense", f"{name}.output.LayerNorm"]
    return tuple(names)


def record(
    model: onnx.ModelProto, config: BertConfig, batches: Sequence[Mapping[str, np.ndarray]]
) -> Activations:
    """Run a graph in float32 by onnxruntime and keep the activations at every point.

    Args:
        model: A graph of `graph.model.write_graph`, in one slice per feed-forward block.
        config: Its architecture.
        batches: Its inputs by name, and `input_mask` int [B, S].
    """
    import onnxruntime

    wanted = {point: _value_at(model.graph, point) for point in points(config)}
    watched = onnx.ModelProto()
    watched.CopyFrom(model)
    known = {output.name for output in watched.graph.output}
    for value in set(wanted.values()) - known:
        watched.graph.output.append(onnx.helper.make_tensor_value_info(value, onnx.TensorProto.FLOAT, None))
    session = onnxruntime.InferenceSession(watched.SerializeToString(), providers=["CPUExecutionProvider"])
    names = [value.name for value in session.get_inputs()]
    found: dict[str, list[np.ndarray]] = {point: [] for point in wanted}
    for batch in batches:
        values = session.run(list(wanted.values()), {name: batch[name] for name in names})
        real = batch["input_mask"].astype(bool)
        for point, value in zip(wanted, values, strict=True):
            found[point].append(value[real])
    return {point: np.concatenate(rows) for point, rows in found.items()}


def _value_at(graph: onnx.GraphProto, point: str) -> str:
    """Name of the value at a point: what the last node of its scope gives, before heads are split."""
    value = ""
    splits_heads = point.endswith((".query", ".key", ".value"))
    for node in graph.node:
        if node.name.rpartition("/")[0] == point and not (splits_heads and node.op_type != "Add"):
            value = node.output[0]
    if not value:
        raise ValueError(f"the graph has no operator of {point}; write it with ffn_slices=1")
    return value
