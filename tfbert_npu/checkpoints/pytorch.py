"""`pytorch_model.bin`: a pickle, read only with PyTorch's loader that takes nothing but tensors."""

from __future__ import annotations

import json
import pickle
import struct
import zipfile
from pathlib import Path, PurePosixPath

import numpy as np

from tfbert_npu.errors import CheckpointError

SINGLE = "pytorch_model.bin"
INDEX = "pytorch_model.bin.index.json"
_SAFE_TORCH = (2, 6)
_DAMAGE = (
    pickle.UnpicklingError, RuntimeError, EOFError, AttributeError, TypeError, KeyError, ValueError,
    IndexError, struct.error, OverflowError, MemoryError,
)  # fmt: skip
"""What PyTorch's loader raises for foreign bytes."""


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
            f"{directory} holds its weights only as a Python pickle ({SINGLE}), which can run code",
            "take a revision with model.safetensors, or convert it once with transformers "
            "(AutoModel.from_pretrained(...).save_pretrained(...)), or install PyTorch, whose "
            "weights_only loader reads nothing but tensors",
        ) from error
    if tuple(int(part) for part in torch.__version__.split(".")[:2]) < _SAFE_TORCH:
        raise CheckpointError(
            f"{directory} holds its weights only as a Python pickle, and PyTorch {torch.__version__} runs "
            "code of such a file even under weights_only (CVE-2025-32434)",
            "install PyTorch 2.6 or newer, or take a revision with model.safetensors",
        )
    names = [SINGLE] if (directory / SINGLE).is_file() else _shards(directory / INDEX)
    tensors = {}
    for name in names:
        path = directory / name
        _check_sizes(path)
        try:
            content = torch.load(path, map_location="cpu", weights_only=True)
            for key, tensor in content.items():
                floating = torch.is_floating_point(tensor)
                tensors[str(key)] = (tensor.float() if floating else tensor).detach().numpy()
        except _DAMAGE as error:
            # PyTorch's own message advises to switch the safe loader off.
            raise CheckpointError(
                f"{path} is damaged or holds something else than tensors ({type(error).__name__})",
                "do not use it",
            ) from error
    return tensors


def _check_sizes(path: Path) -> None:
    """Look at what a file would unpack to; PyTorch stores its entries uncompressed.

    Raises:
        CheckpointError: It would be larger than the file.
    """
    if not zipfile.is_zipfile(path):
        return  # the form before PyTorch 1.6, a bare pickle
    try:
        with zipfile.ZipFile(path) as archive:
            unpacked = sum(entry.file_size for entry in archive.infolist())
    except (zipfile.BadZipFile, ValueError, struct.error) as error:
        raise CheckpointError(f"{path} is damaged ({error})", "download it again") from error
    if unpacked > path.stat().st_size:
        raise CheckpointError(
            f"{path} has {path.stat().st_size} bytes and would unpack to {unpacked}, which no file of "
            "PyTorch's does",
            "do not use it",
        )


def _shards(index: Path) -> list[str]:
    try:
        weight_map = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
        names = sorted({str(name) for name in weight_map.values()})
    except (AttributeError, KeyError, TypeError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{index} is no index of PyTorch files", "download it again") from error
    for name in names:
        if PurePosixPath(name).name != name or "\\" in name:
            raise CheckpointError(f"{index} names {name!r}, a file outside of its directory", "do not use it")
    return names
