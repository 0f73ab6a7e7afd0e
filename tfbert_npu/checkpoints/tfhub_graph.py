"""What only the graph of a TF-Hub encoder tells: activation, epsilon, dropout, and whether it is a BERT.

Its node definitions are read by their names; nothing is run.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import numpy as np

from tfbert_npu.checkpoints.saved_model import SavedModel
from tfbert_npu.config import Activation
from tfbert_npu.errors import CheckpointError

TRUST = "pass trust_saved_model=True to run its own graph instead of rebuilding it"


class EncoderGraph:
    """The nodes of the whole-encoder functions, by the scope of their names."""

    def __init__(self, model: SavedModel) -> None:
        self._directory = model.directory
        self._nodes = [
            (match[1], node)
            for node in model.ops()
            if (match := re.search(r"(?:^|/)(?:transformer|encoder)/(layer_\d+/.*)$", node.name))
        ]
        if not self._nodes:
            raise CheckpointError(f"{model.directory} has no graph of an encoder with layers", TRUST)

    def _below(self, scope: str) -> Iterator[tuple[str, Any]]:
        for name, node in self._nodes:
            if re.match(scope, name):
                yield name, node

    def check_form(self) -> None:
        """Refuse what is built otherwise than BERT though its variables have the same names."""
        for name, node in self._nodes:
            if re.match(r"layer_\d+/strided_slice(_\d+)?$", name):
                raise CheckpointError(
                    f"{self._directory} gives only some positions of its last layer (output_range)", TRUST
                )
            if re.match(r"layer_\d+/self_attention/query/einsum/Einsum$", name) and any(
                "self_attention_layer_norm" in source for source in node.input
            ):
                raise CheckpointError(
                    f"{self._directory} normalizes before attention, not after it (norm_first)", TRUST
                )

    def activation(self) -> Activation:
        """The activation between a layer's two dense layers."""
        ops = {
            node.op
            for _, node in self._below(r"layer_0/((intermediate_)?activation(_\d+)?|intermediate)/")
            if node.op not in _PLUMBING
        }
        if "Erf" in ops or "Erfc" in ops:
            return "gelu"
        if "Gelu" in ops:
            raise CheckpointError(f"{self._directory} has a fused GELU of unknown form", TRUST)
        for activation, needed in _ACTIVATION_OPS:
            if ops == needed:
                return activation
        raise CheckpointError(
            f"{self._directory} has an activation that is not known here ({', '.join(sorted(ops))})", TRUST
        )

    def layer_norm_eps(self) -> float:
        """The constant that is added to the variance."""
        for name, node in self._below(r"layer_0/output_layer_norm/"):
            if name.endswith("batchnorm/add/y"):
                return float(np.format_float_scientific(_constant(node), precision=3))
        return 1e-12

    def dropout_rates(self) -> tuple[float, float]:
        """Rates after the dense layers and on the attention weights; 0 where training drops nothing."""
        hidden = attention = 0.0
        for name, node in self._below(r"layer_0/"):
            # x is scaled by 1 / (1 - rate) in training; the rate itself is compared with random numbers.
            if not re.search(r"dropout(_\d+)?/GreaterEqual/y$", name):
                continue
            if re.search(r"/self_attention/.*dropout", name):
                attention = round(float(_constant(node)), 6)
            elif re.match(r"layer_0/(output_)?dropout_[1-9]\d*/|layer_0/output_dropout/", name):
                hidden = round(float(_constant(node)), 6)
        return hidden, attention


# Nodes that only move data about, or belong to the dense layer itself.
_PLUMBING = frozenset(
    {
        "Const", "Identity", "IdentityN", "ReadVariableOp", "Einsum", "MatMul", "BiasAdd", "Reshape", "Shape",
        "StridedSlice", "Pack", "Prod", "GatherV2", "ConcatV2", "Cast", "Mul", "AddV2", "Add", "NoOp",
        "Tensordot", "Transpose", "VarHandleOp",
    }
)  # fmt: skip
_ACTIVATION_OPS: tuple[tuple[Activation, set[str]], ...] = (
    ("gelu_tanh", {"Pow", "Tanh"}),
    ("relu", {"Relu"}),
    ("silu", {"Sigmoid"}),
    ("tanh", {"Tanh"}),
    ("linear", set()),
)


def _constant(node: Any) -> float:
    """A scalar of the graph; TensorFlow's own conversion would allocate whatever shape the file claims."""
    tensor = node.attr["value"].tensor
    if tensor.tensor_shape.dim or tensor.dtype != 1:  # DT_FLOAT
        raise CheckpointError(f"the constant {node.name} of the graph is no float", "export the model again")
    if len(tensor.tensor_content) == 4:
        return float(np.frombuffer(tensor.tensor_content, "<f4")[0])
    return float(tensor.float_val[0]) if tensor.float_val else 0.0
