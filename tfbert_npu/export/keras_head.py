"""Arbitrary Keras layers on top of our encoder: the encoder from its weights, the rest through tf2onnx."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tfbert_npu.errors import require
from tfbert_npu.heads import Axis, OutputSpec
from tfbert_npu.onnx.builder import IR_VERSION, OPSET

# What rknn-toolkit2 puts on the NPU in shapes as small as a head's, alone or fused into a product.
_PLAIN = frozenset(
    [
        "Add",
        "Concat",
        "Div",
        "Gemm",
        "Identity",
        "LayerNormalization",
        "MatMul",
        "Mul",
        "Relu",
        "Reshape",
        "Sigmoid",
        "Slice",
        "Softmax",
        "Squeeze",
        "Sub",
        "Tanh",
        "Transpose",
        "Unsqueeze",
    ]
)
# Arithmetic on shapes, which the compiler folds away.
_FOLDED = frozenset(["Cast", "Constant", "ConstantOfShape", "Gather", "Range", "Shape"])


@dataclass(frozen=True)
class KerasHead:
    """The part of a functional model that comes after the encoder, as ONNX."""

    graph: Any
    """`onnx.ModelProto` from encoder outputs, by their names, to the model's outputs."""
    takes: tuple[str, ...]
    """The encoder outputs that it reads."""
    gives: tuple[OutputSpec, ...]
    """Its outputs, in the model's order."""


def take_apart(model: Any) -> tuple[Any, KerasHead]:
    """Split a functional model into its `BertEncoder` and the ONNX graph of what follows.

    Args:
        model: A functional `keras.Model` whose three inputs go into one `BertEncoder`, and nowhere else.

    Returns:
        The encoder, and the head.

    Raises:
        ValueError: The model is not of that form.
    """
    from tfbert_npu.models.encoder import BertEncoder

    if not hasattr(model, "operations") or not hasattr(model, "output_names"):
        raise ValueError(_form(model, "it is not functional"))
    encoders = [operation for operation in model.operations if isinstance(operation, BertEncoder)]
    if len(encoders) != 1:
        raise ValueError(_form(model, f"it holds {len(encoders)} encoders"))
    encoder = encoders[0]
    readers = [node for operation in model.operations for node in operation._inbound_nodes]
    (node,) = [node for node in readers if node.operation is encoder][-1:]
    given = {id(tensor) for tensor in model.inputs}
    if {id(tensor) for tensor in node.input_tensors} != given:
        raise ValueError(_form(model, "its inputs are not the encoder's"))
    read = {id(t) for reader in readers if reader is not node for t in reader.input_tensors}
    read |= {id(tensor) for tensor in model.outputs}
    if read & given:
        raise ValueError(_form(model, "an input goes past the encoder"))
    layers = encoder.config.num_hidden_layers
    # The order in which Keras flattens the encoder's dict of outputs: by key.
    names = [
        "pooled_output",
        *(f"encoder_outputs_{i}" for i in range(layers)),
        "pooled_output",
        "sequence_output",
    ]
    # One tensor may be there under two names, as the last of encoder_outputs and as sequence_output.
    by_id = {id(tensor): (name, tensor) for name, tensor in zip(names, node.outputs, strict=True)}
    used = [by_id[key] for key in by_id if key in read]
    return encoder, _converted(model, used)


def _converted(model: Any, used: Sequence[tuple[str, Any]]) -> KerasHead:
    tf2onnx = require("tf2onnx", "export")
    import keras
    import onnx
    import tensorflow as tf

    after = keras.Model([tensor for _, tensor in used], model.outputs)
    takes = tuple(name for name, _ in used)
    gives = tuple(model.output_names)

    @tf.function
    def call(*tensors: Any) -> dict[str, Any]:
        outputs = after(list(tensors), training=False)
        outputs = outputs if isinstance(outputs, (list, tuple)) else [outputs]
        return {name: tf.cast(value, tf.float32) for name, value in zip(gives, outputs, strict=True)}

    signature = [tf.TensorSpec(tensor.shape, tf.float32, name=name) for name, tensor in used]
    graph, _ = tf2onnx.convert.from_function(call, input_signature=signature, opset=OPSET)
    graph = onnx.compose.add_prefix(graph, "head/", rename_inputs=False, rename_outputs=False)
    graph.ir_version = IR_VERSION
    del graph.opset_import[:]
    graph.opset_import.extend([onnx.helper.make_opsetid("", OPSET)])
    kinds = sorted({node.op_type for node in graph.graph.node} - _PLAIN - _FOLDED)
    if kinds:
        warnings.warn(
            f"the layers after the encoder became the operators {', '.join(kinds)}, which rknn-toolkit2 may "
            "leave unfused or to the CPU; the cost report says which",
            stacklevel=5,
        )
    length = model.inputs[0].shape[1]
    shapes = [tensor.shape for tensor in model.outputs]
    specs = [OutputSpec(name, _axes(shape, length)) for name, shape in zip(gives, shapes, strict=True)]
    return KerasHead(graph, takes, tuple(specs))


def _axes(shape: Sequence[int | None], length: int | None) -> tuple[Axis, ...]:
    """What the axes of an output are, of a model whose inputs have this length; None: any."""
    axes: list[Axis] = ["B", *(size if size is not None else "S" for size in shape[1:])]
    # With a fixed length the second of three axes is the tokens' if it is as long.
    if len(axes) > 2 and axes[1] == length:
        axes[1] = "S"
    return tuple(axes)


def attach(encoder: Any, head: KerasHead) -> Any:
    """The ONNX graph of an encoder that gives `head.takes`, followed by the head."""
    import onnx

    kept = onnx.compose.merge_models(encoder, head.graph, io_map=[(name, name) for name in head.takes])
    by_name = {output.name: output for output in kept.graph.output}
    del kept.graph.output[:]
    kept.graph.output.extend([by_name[spec.name] for spec in head.gives])
    onnx.checker.check_model(kept, full_check=True)
    return kept


def outputs_by_name(model: Any, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """What the Keras model itself gives."""
    from keras.ops import convert_to_numpy
    from keras.tree import flatten

    values = flatten(model(dict(inputs), training=False))
    return {name: convert_to_numpy(value) for name, value in zip(model.output_names, values, strict=True)}


def _form(model: Any, why: str) -> str:
    return (
        f"{model.name} cannot be exported, {why}; give a functional keras.Model whose inputs input_word_ids, "
        "input_mask and input_type_ids go into one BertEncoder"
    )
