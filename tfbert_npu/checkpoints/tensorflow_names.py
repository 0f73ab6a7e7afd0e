"""The names of transformers' TensorFlow variables, as PyTorch's files have them.

Contract: transformers 4.49, modeling_tf_pytorch_utils.py.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import numpy as np

_MARKED = re.compile(r"(?<=/)[^/]*___(?=[^/]*/)")
"""`mlm___cls` and `nsp___cls` are PyTorch's `cls`."""
_LAYER = re.compile(r"_\._")


def from_tensorflow(tensors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Tensors under TensorFlow's names as they are in PyTorch's files: its names, kernels transposed.

    Args:
        tensors: Such as `bert/encoder/layer_._0/output/dense/kernel:0`, float32 [in, out].
    """
    found = {}
    for name, value in tensors.items():
        path = _MARKED.sub("", "/" + name.removesuffix(":0")).removeprefix("/")
        *folders, last = _LAYER.sub("/", path).split("/")
        if last == "kernel":
            value = np.ascontiguousarray(value.T)
        if last in ("kernel", "embeddings"):
            last = "weight"
        found[".".join([*folders, last])] = value
    return found
