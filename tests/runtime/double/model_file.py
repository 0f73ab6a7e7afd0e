"""Files that pass for .rknn: the vendor's header and description around a payload that the double computes.

The payload is an ONNX graph, run by onnxruntime, or `CHECKSUM`, which makes of each token a number that depends
on the whole input; emulated, there is no onnxruntime.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

MAGIC = b"RKNN\0\0\0\0"
CHECKSUM = b"CHECKSUM"
_FORMAT = 5  # not the vendor's FlatBuffer format: a reader finds the description only

Shape = tuple[int, ...]
Compute = Callable[[Sequence[np.ndarray]], list[np.ndarray]]


@dataclass(frozen=True)
class FakeModel:
    inputs: list[tuple[str, str]]
    outputs: list[tuple[str, str]]
    input_shapes: list[list[Shape]]
    """For each compiled shape, those of all inputs."""
    output_shapes: list[list[Shape]]
    platform: str
    version: str
    payload: bytes = CHECKSUM

    def write(self, path: Path) -> None:
        tensors, edges = [], []
        sides = (
            ("input", self.inputs, self.input_shapes[0]),
            ("output", self.outputs, self.output_shapes[0]),
        )
        for side, names, shapes in sides:
            for place, ((name, dtype), shape) in enumerate(zip(names, shapes, strict=True)):
                edges.append(
                    {
                        "left": side,
                        "left_tensor_id": place,
                        "right": "norm_tensor",
                        "right_tensor_id": len(tensors),
                    }
                )
                tensors.append(
                    {
                        "tensor_id": len(tensors),
                        "url": name,
                        "size": list(shape),
                        "dtype": {"qnt_type": dtype},
                    }
                )
        description = json.dumps(
            {
                "norm_tensor": tensors,
                "graph": edges,
                "target_platform": [self.platform],
                "version": f"{self.version} (double)",
                "input_shapes": self.input_shapes,
                "output_shapes": self.output_shapes,
            }
        ).encode()
        head = MAGIC + struct.pack("<QQ", _FORMAT, len(self.payload))
        path.write_bytes(
            head.ljust(64, b"\0") + self.payload + struct.pack("<Q", len(description)) + description
        )

    @classmethod
    def parse(cls, content: bytes) -> FakeModel | None:
        """The model, or None for what librknnrt.so would refuse."""
        if content[:8] != MAGIC or len(content) < 72:
            return None
        _, length = struct.unpack("<QQ", content[8:24])
        try:
            document = json.loads(content[64 + length + 8 :])
        except ValueError:
            return None
        tensors = [(t["url"], t["dtype"]["qnt_type"]) for t in document["norm_tensor"]]
        count = sum(edge["left"] == "input" for edge in document["graph"])
        return cls(
            inputs=tensors[:count],
            outputs=tensors[count:],
            input_shapes=[[tuple(s) for s in shapes] for shapes in document["input_shapes"]],
            output_shapes=[[tuple(s) for s in shapes] for shapes in document["output_shapes"]],
            platform=document["target_platform"][0],
            version=document["version"].split()[0],
            payload=content[64 : 64 + length],
        )

    def compute(self) -> Compute:
        if self.payload == CHECKSUM:
            return self._checksum
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        session = onnxruntime.InferenceSession(self.payload, options, providers=["CPUExecutionProvider"])
        names = [value.name for value in session.get_inputs()]
        wanted = [name for name, _ in self.outputs]
        return lambda arrays: session.run(wanted, dict(zip(names, arrays, strict=True)))

    def _checksum(self, arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
        which = self.input_shapes.index([array.shape for array in arrays])
        return [checksum(arrays, shape) for shape in self.output_shapes[which]]


def checksum(arrays: Sequence[np.ndarray], shape: Shape) -> np.ndarray:
    """Numbers that change with every real token, its place and its row, and with nothing at padding."""
    ids, mask = arrays[0].astype(np.float64), arrays[1]
    types = arrays[2] if len(arrays) > 2 else np.zeros_like(mask)
    places = np.arange(1, ids.shape[1] + 1)
    total = ((ids * 3 + types + 1) * mask * places).sum(axis=1)
    if len(shape) == 3:
        per_token = (total[:, None] + ids) * mask
        value = per_token[:, :, None] % 9973 + np.arange(shape[2])
    else:
        value = total[:, None] % 9973 + np.arange(shape[1])
    return value.astype(np.float32)
