"""Inputs and outputs of a graph, in the order in which the vendor takes and gives them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from tfbert_npu.artifact.manifest import TensorSpec


class Session(Protocol):
    """What computes a compiled graph, such as the vendor's simulator."""

    def infer(self, inputs: list[np.ndarray]) -> Sequence[np.ndarray]:
        """The outputs, in their order."""


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

    def input_shapes(self, shape: tuple[int, int]) -> list[list[int]]:
        """The inputs' shapes at one (batch, length)."""
        return [list(spec.at(shape)) for spec in self.inputs]

    def ordered(self, batch: Mapping[str, np.ndarray]) -> list[np.ndarray]:
        """A batch as the list that the vendor takes: its order, its dtypes."""
        return [np.ascontiguousarray(batch[spec.name], spec.dtype) for spec in self.inputs]

    def simulate(self, session: Session, batch: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Outputs of what a session compiled, in its simulator, float32, by name."""
        values = session.infer(self.ordered(batch))
        return {spec.name: value for spec, value in zip(self.outputs, values, strict=True)}
