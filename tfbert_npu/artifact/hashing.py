"""Hashes of files and of weights."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping

import numpy as np

_CHUNK = 1 << 20


def sha256_of(path: str | os.PathLike[str]) -> str:
    """SHA-256 of a file's content, in hexadecimal."""
    digest = hashlib.sha256()
    with open(path, "rb") as stream:
        while chunk := stream.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def state_sha256(state: Mapping[str, np.ndarray]) -> str:
    """SHA-256 of weights: of each tensor's name, shape and float32 content, in the order of the names.

    It does not depend on the file format from which the weights came, so that a layer can tell whether an
    artifact was made from the weights that it holds now.
    """
    digest = hashlib.sha256()
    for name in sorted(state):
        tensor = np.ascontiguousarray(state[name], dtype="<f4")
        digest.update(f"{name}{list(tensor.shape)}".encode())
        digest.update(tensor.data)
    return digest.hexdigest()
