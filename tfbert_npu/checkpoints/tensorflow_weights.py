"""The weights of transformers' TensorFlow models: `tf_model.h5`, and safetensors of format "tf".

Contract: transformers 4.49, modeling_tf_utils.py and modeling_tf_pytorch_utils.py (names and transposition).
transformers 5 has no TensorFlow models; these files remain.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from tfbert_npu.checkpoints.safetensors_files import files_of_index
from tfbert_npu.checkpoints.tensorflow_names import from_tensorflow
from tfbert_npu.errors import CheckpointError, require

SINGLE = "tf_model.h5"
INDEX = "tf_model.h5.index.json"


def read_h5(directory: Path) -> dict[str, np.ndarray]:
    """Every tensor of `tf_model.h5`, or of the files that its index names, as PyTorch's files hold them.

    Raises:
        FileNotFoundError: A file is missing.
        CheckpointError: A file is damaged, or holds something else than such weights.
    """
    require("h5py", "tf")
    single = directory / SINGLE
    names = [SINGLE] if single.is_file() else sorted(files_of_index(directory / INDEX))
    tensors: dict[str, np.ndarray] = {}
    for name in names:
        if not (directory / name).is_file():
            raise FileNotFoundError(f"{directory} lacks {name}, which {INDEX} names; download it again")
        tensors |= _read(directory / name)
    return from_tensorflow(tensors)


def _read(path: Path) -> dict[str, np.ndarray]:
    import h5py

    found: dict[str, Any] = {}
    try:
        with h5py.File(path, "r") as file:
            # Links that lead to other files are not followed.
            file.visititems(lambda name, item: found.update({name: item}))
            found = {name: item for name, item in found.items() if isinstance(item, h5py.Dataset)}
            promised = sum(item.size * item.dtype.itemsize for item in found.values())
            elsewhere = any(item.external or item.is_virtual for item in found.values())
            if elsewhere or promised > path.stat().st_size:
                raise CheckpointError(
                    f"{path} holds fewer bytes than its tensors take", "download it again, or do not use it"
                )
            # The group of a layer, the model's name, and the variable's own path.
            return {name.split("/", 2)[2]: item[()] for name, item in found.items() if name.count("/") > 1}
    except (OSError, RuntimeError, KeyError, ValueError, TypeError) as error:
        if isinstance(error, CheckpointError):
            raise
        reason = (str(error).splitlines() or [type(error).__name__])[0][:200]
        raise CheckpointError(f"{path} is damaged or no HDF5 file ({reason})", "download it again") from error
