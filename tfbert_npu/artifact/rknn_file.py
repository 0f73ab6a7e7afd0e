"""Reading a `.rknn` file's header without vendor code, before native code sees the file.

The layout, found by looking at files of rknn-toolkit2 2.3.2 and 2.5.0: `RKNN` and four zeros; a u64 format
version at 8; a u64 payload length n at 16; the payload, a FlatBuffer in format 6, at 64; at 64 + n a u64
length and a JSON document of that length, with which the file ends.
"""

from __future__ import annotations

import json
import mmap
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tfbert_npu._files import refuse_pointer
from tfbert_npu.artifact.flatbuffer import Table
from tfbert_npu.artifact.manifest import TensorSpec
from tfbert_npu.errors import ArtifactError

_MAGIC = b"RKNN\0\0\0\0"
_PAYLOAD = 64
_FLATBUFFER_FORMAT = 6
_MOST_JSON = 16 * 2**20
_MOST_GRAPHS, _MOST_TENSORS, _MOST_DIMS = 4096, 1_000_000, 16

# Fields of the payload's root table, of a graph and of a tensor.
_GRAPHS, _VERSION, _CUSTOM, _INPUT_TYPES, _OUTPUT_TYPES = 2, 7, 11, 12, 13
_GRAPH_TENSORS, _GRAPH_INPUTS, _GRAPH_OUTPUTS = 0, 2, 3
_TENSOR_SHAPE, _TENSOR_NAME = 3, 5


@dataclass(frozen=True)
class RknnFile:
    """What a `.rknn` file says of itself."""

    path: Path
    size: int
    """Bytes."""
    format_version: int
    platforms: tuple[str, ...]
    """SoCs that it was compiled for, such as `("rk3588",)`."""
    toolkit_version: str
    """Version of rknn-toolkit2; the board's runtime must not be older."""
    inputs: tuple[TensorSpec, ...]
    """Inputs in their order, with the shape of the first graph; the dtype is what the runtime is to be given,
    or `""` where the file does not say."""
    outputs: tuple[TensorSpec, ...]
    input_shapes: tuple[tuple[tuple[int, ...], ...], ...]
    """For each shape that the file was compiled for, the shapes of all inputs; one entry in a static file."""
    custom_string: str | None


def read_rknn(path: str | os.PathLike[str]) -> RknnFile:
    """Read a `.rknn` file's header.

    Raises:
        FileNotFoundError: There is no such file.
        ArtifactError: It is truncated, damaged or no `.rknn` file.
    """
    path = Path(path)
    size = path.stat().st_size
    refuse_pointer(path)
    if size < _PAYLOAD + 8:
        raise ArtifactError(
            f"{path} is no .rknn file or truncated: it has {size} bytes", "export or copy it again"
        )
    with open(path, "rb") as stream:
        # Not closed by hand: an error's traceback may still hold a view of it.
        data = memoryview(mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ))
    try:
        return _read(path, data)
    except ArtifactError as error:
        raise ArtifactError(
            f"{path} is damaged or no .rknn file: {error}", "export or copy it again"
        ) from error


def _read(path: Path, data: memoryview) -> RknnFile:
    if bytes(data[:8]) != _MAGIC:
        raise ArtifactError("it does not begin with RKNN")
    format_version, length = (int.from_bytes(data[at : at + 8], "little") for at in (8, 16))
    end = _PAYLOAD + length
    if end + 8 > len(data):
        raise ArtifactError(f"its payload of {length} bytes is cut off")
    json_length = int.from_bytes(data[end : end + 8], "little")
    if json_length > _MOST_JSON or end + 8 + json_length != len(data):
        raise ArtifactError("its description is cut off or does not end with the file")
    described = _described(bytes(data[end + 8 :]))
    if format_version == _FLATBUFFER_FORMAT:
        graphs = _graphs(data[_PAYLOAD:end])
    else:
        graphs = {}
    inputs, outputs = described["inputs"], described["outputs"]
    if graphs:
        inputs, outputs = _agreed(inputs, graphs["inputs"]), _agreed(outputs, graphs["outputs"])
    return RknnFile(
        path=path,
        size=len(data),
        format_version=format_version,
        platforms=described["platforms"],
        toolkit_version=described["version"],
        inputs=inputs,
        outputs=outputs,
        input_shapes=graphs.get("input_shapes") or (tuple(spec.shape for spec in inputs),),
        custom_string=graphs.get("custom_string"),
    )


def _described(raw: bytes) -> dict[str, Any]:
    try:
        document = json.loads(raw)
        tensors = {int(t["tensor_id"]): t for t in document["norm_tensor"]}
        sides: dict[str, list[tuple[int, TensorSpec]]] = {"input": [], "output": []}
        for edge in document["graph"]:
            tensor = tensors[int(edge["right_tensor_id"])]
            shape = tuple(int(size) for size in tensor["size"])
            if any(size < 0 for size in shape):
                raise ArtifactError("a shape in it is negative")
            dtype = str(tensor["dtype"]["qnt_type"])
            place = int(edge["left_tensor_id"])
            sides[edge["left"]].append((place, TensorSpec(str(tensor["url"]), dtype, shape)))
        platforms = tuple(str(name) for name in document["target_platform"])
        version = re.match(r"\d+\.\d+\.\d+", str(document["version"]))
        if version is None or not platforms:
            raise ArtifactError("it names no toolkit version or no platform")
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError, OverflowError) as error:
        if isinstance(error, ArtifactError):
            raise
        raise ArtifactError(
            f"its description is not what the toolkit writes ({type(error).__name__})"
        ) from error
    inputs, outputs = (
        tuple(spec for _, spec in sorted(sides[side], key=lambda pair: pair[0]))
        for side in ("input", "output")
    )
    if not inputs or not outputs:
        raise ArtifactError("it names no inputs or no outputs")
    return {"inputs": inputs, "outputs": outputs, "platforms": platforms, "version": version.group()}


def _graphs(payload: memoryview) -> dict[str, Any]:
    root = Table.root(payload)
    types = {**_dtypes(root.string(_INPUT_TYPES)), **_dtypes(root.string(_OUTPUT_TYPES))}
    graphs = []
    for graph in root.tables(_GRAPHS, _MOST_GRAPHS):
        tensors = graph.tables(_GRAPH_TENSORS, _MOST_TENSORS)
        graphs.append(
            tuple(
                tuple(_tensor(tensors, index, types) for index in graph.numbers(field, _MOST_GRAPHS))
                for field in (_GRAPH_INPUTS, _GRAPH_OUTPUTS)
            )
        )
    if not graphs:
        raise ArtifactError("it holds no graph")
    if root.string(_VERSION) is None:
        raise ArtifactError("it names no compiler version")
    return {
        "inputs": graphs[0][0],
        "outputs": graphs[0][1],
        "input_shapes": tuple(tuple(spec.shape for spec in graph[0]) for graph in graphs),
        "custom_string": root.string(_CUSTOM) or None,
    }


def _tensor(tensors: tuple[Table, ...], index: int, types: Mapping[str, str]) -> TensorSpec:
    if not 0 <= index < len(tensors):
        raise ArtifactError("a tensor's number in it is beyond their count")
    name = tensors[index].string(_TENSOR_NAME)
    if name is None:
        raise ArtifactError("a tensor in it has no name")
    return TensorSpec(name, types.get(name, ""), tensors[index].numbers(_TENSOR_SHAPE, _MOST_DIMS))


def _dtypes(text: str | None) -> dict[str, str]:
    if not text:
        return {}
    try:
        return {str(name): str(value["dtype"]) for name, value in json.loads(text).items()}
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise ArtifactError("its table of dtypes is not what the toolkit writes") from error


def _agreed(described: tuple[TensorSpec, ...], compiled: tuple[TensorSpec, ...]) -> tuple[TensorSpec, ...]:
    if [spec.name for spec in described] != [spec.name for spec in compiled]:
        raise ArtifactError("its description and its graph name different tensors")
    return compiled
