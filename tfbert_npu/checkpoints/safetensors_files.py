"""Reading the tensors of a Hugging Face directory: one safetensors file, or several behind an index."""

from __future__ import annotations

import json
from pathlib import Path, PurePosixPath

import numpy as np
from safetensors import SafetensorError, deserialize, safe_open

from tfbert_npu.checkpoints.tensorflow_names import from_tensorflow
from tfbert_npu.errors import CheckpointError
from tfbert_npu.paths import file_inside

SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
_KNOWN = {"F64", "F32", "F16", "BF16", "I64", "I32", "I16", "I8", "U64", "U32", "U16", "U8", "BOOL"}


def read_tensors(directory: Path) -> dict[str, np.ndarray]:
    """Every tensor of `model.safetensors`, or of the files that `model.safetensors.index.json` names.

    Half precision is widened to float32; other dtypes stay as they are.

    Raises:
        FileNotFoundError: The directory holds neither file, or lacks one that the index names.
        CheckpointError: A file is truncated or no safetensors file, or the index is damaged.
    """
    if (directory / SINGLE).is_file():
        return _read_file(directory / SINGLE)
    if not (directory / INDEX).is_file():
        raise FileNotFoundError(f"{directory} holds neither {SINGLE} nor {INDEX}")
    tensors: dict[str, np.ndarray] = {}
    for name, promised in sorted(files_of_index(directory / INDEX).items()):
        if not file_inside(directory, name).is_file():
            raise FileNotFoundError(f"{directory} lacks {name}, which {INDEX} names; download it again")
        content = _read_file(directory / name)
        absent = sorted(promised - content.keys())
        if absent:
            raise CheckpointError(f"{directory / name} lacks {', '.join(absent)}, which {INDEX} puts there")
        tensors.update({tensor: content[tensor] for tensor in promised})
    return tensors


def files_of_index(path: Path) -> dict[str, set[str]]:
    """The files that an index names, each with its tensors.

    Raises:
        CheckpointError: The index is damaged, or names a file outside of its directory.
    """
    try:
        weight_map = json.loads(path.read_text(encoding="utf-8"))["weight_map"]
        pairs = [(str(tensor), file) for tensor, file in weight_map.items()]
        if not all(isinstance(file, str) for _, file in pairs):
            raise TypeError("a file has no name")
    except (AttributeError, KeyError, TypeError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} is no index of weight files", "download it again") from error
    files: dict[str, set[str]] = {}
    for tensor, file in pairs:
        if PurePosixPath(file).name != file or "\\" in file:
            raise CheckpointError(f"{path} names {file!r}, a file outside of its directory", "do not use it")
        files.setdefault(file, set()).add(tensor)
    return files


def _read_file(path: Path) -> dict[str, np.ndarray]:
    try:
        with safe_open(path, framework="numpy") as file:
            from_tf = (file.metadata() or {}).get("format") == "tf"
            dtypes = {name: file.get_slice(name).get_dtype() for name in file.keys()}  # noqa: SIM118
            strange = sorted(set(dtypes.values()) - _KNOWN)
            if strange:
                raise CheckpointError(
                    f"{path} holds tensors of {', '.join(strange)}, which numpy cannot compute with",
                    "save the model in float32, float16 or bfloat16",
                )
            # numpy has no bfloat16 of its own, so those tensors are taken as raw bytes below.
            tensors = {name: file.get_tensor(name) for name, dtype in dtypes.items() if dtype != "BF16"}
        if len(tensors) < len(dtypes):
            for name, info in deserialize(path.read_bytes()):
                if info["dtype"] == "BF16":
                    tensors[name] = _widen_bfloat16(info["data"]).reshape(info["shape"])
    except SafetensorError as error:
        raise CheckpointError(
            f"{path} is truncated or no safetensors file ({error})", "download it again"
        ) from error
    if from_tf:
        tensors = from_tensorflow(tensors)
    return {
        name: tensor.astype(np.float32) if tensor.dtype == np.float16 else tensor
        for name, tensor in tensors.items()
    }


def _widen_bfloat16(data: bytes) -> np.ndarray:
    # A bfloat16 is the upper half of a float32.
    return (np.frombuffer(data, dtype="<u2").astype(np.uint32) << 16).view(np.float32)
