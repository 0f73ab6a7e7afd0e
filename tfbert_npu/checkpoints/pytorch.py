"""`pytorch_model.bin`: a pickle, read only with PyTorch's loader that takes nothing but tensors."""

from __future__ import annotations

import json
import pickle
from pathlib import Path, PurePosixPath

import numpy as np

from tfbert_npu.errors import CheckpointError

SINGLE = "pytorch_model.bin"
INDEX = "pytorch_model.bin.index.json"


def read_pickles(directory: Path) -> dict[str, np.ndarray]:
    """Every tensor of `pytorch_model.bin`, or of the files that its index names, as float32 or integers.

    Raises:
        CheckpointError: PyTorch is not installed, or a file is damaged or holds something else than tensors.
        FileNotFoundError: A file is missing.
    """
    try:
        import torch
    except ImportError as error:
        raise CheckpointError(
            f"{directory} holds its weights only as a Python pickle ({SINGLE}), which can run code; take a "
            "revision with model.safetensors, or convert it once with transformers "
            "(AutoModel.from_pretrained(...).save_pretrained(...)), or install PyTorch, whose weights_only "
            "loader reads nothing but tensors"
        ) from error
    names = [SINGLE] if (directory / SINGLE).is_file() else _shards(directory / INDEX)
    tensors = {}
    for name in names:
        path = directory / name
        try:
            content = torch.load(path, map_location="cpu", weights_only=True)
            for key, tensor in content.items():
                floating = torch.is_floating_point(tensor)
                tensors[str(key)] = (tensor.float() if floating else tensor).detach().numpy()
        except (pickle.UnpicklingError, RuntimeError, EOFError, AttributeError, TypeError, KeyError) as error:
            reason = (str(error).splitlines() or [type(error).__name__])[0][:200]
            raise CheckpointError(
                f"{path} is damaged or holds something else than tensors ({reason}); do not use it"
            ) from error
    return tensors


def _shards(index: Path) -> list[str]:
    try:
        weight_map = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
        names = sorted({str(name) for name in weight_map.values()})
    except (AttributeError, KeyError, TypeError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{index} is no index of PyTorch files; download it again") from error
    for name in names:
        if PurePosixPath(name).name != name or "\\" in name:
            raise CheckpointError(f"{index} names {name!r}, a file outside of its directory; do not use it")
    return names
