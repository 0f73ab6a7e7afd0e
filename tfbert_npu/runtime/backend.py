"""The seam between what computes and what hands it work."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, Protocol

import numpy as np

from tfbert_npu.artifact.manifest import TensorSpec
from tfbert_npu.runtime.errors import BackendError

BackendName = Literal["rknn", "simulator", "onnx", "openvino"]
Arrays = Mapping[str, np.ndarray]
Shape = tuple[int, int]
"""(batch, length in tokens)."""


class Backend(Protocol):
    """One context that computes a model: on one NPU core, in the simulator or on the CPU.

    It computes one call at a time; calls from several threads wait for each other.
    """

    name: BackendName
    inputs: tuple[TensorSpec, ...]
    """In the order in which the model takes them; -1 stands for batch and length."""
    outputs: tuple[TensorSpec, ...]
    shapes: tuple[Shape, ...]
    """The shapes that it takes; empty if it takes any."""

    def run(self, inputs: Arrays) -> dict[str, np.ndarray]:
        """Compute one batch of exactly one of the shapes.

        Raises:
            BackendError: It failed, or gave something else than the outputs that it promises.
        """
        ...

    def close(self) -> None:
        """Wait for a call in progress and free what is held; a second call does nothing."""
        ...


def ordered(specs: Sequence[TensorSpec], inputs: Arrays, shape: Shape) -> list[np.ndarray]:
    """The arrays as native code wants them: its order, exact shape and dtype, C-contiguous.

    Native code reads as many bytes as the shape needs, whatever it is given: nothing may pass that is not
    exactly right.

    Raises:
        BackendError: An array is missing, or of another shape or dtype.
    """
    arrays = []
    for spec in specs:
        value = inputs.get(spec.name)
        if value is None or value.dtype != spec.dtype or value.shape != spec.at(shape):
            got = "nothing" if value is None else f"{value.dtype} {value.shape}"
            raise BackendError(f"{spec.name} must be {spec.dtype} {spec.at(shape)}, got {got}")
        arrays.append(np.ascontiguousarray(value))
    return arrays


def named(
    specs: Sequence[TensorSpec], values: Sequence[np.ndarray] | None, shape: Shape, who: str
) -> dict[str, np.ndarray]:
    """The outputs by name, after a look at their number, shapes and dtypes.

    Raises:
        BackendError: There are none, or they are not what the model gives.
    """
    if values is None:
        raise BackendError(f"{who} failed to compute and gave no outputs")
    if len(values) != len(specs):
        raise BackendError(
            f"{who} gave {len(values)} outputs instead of {len(specs)}", "export the model again"
        )
    outputs = {}
    for spec, value in zip(specs, values, strict=True):
        if value.shape != spec.at(shape) or value.dtype != np.float32:
            raise BackendError(
                f"{who} gave {spec.name} as {value.dtype} {value.shape} instead of float32 {spec.at(shape)}",
                "export the model again",
            )
        outputs[spec.name] = value
    return outputs
