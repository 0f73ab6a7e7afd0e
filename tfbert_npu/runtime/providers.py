"""Backends that are made outside of the runtime.

Their modules depend on the runtime and register themselves, so that the runtime needs to know no more of them
than where to look when one is asked for by name.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable
from typing import TypeVar

from tfbert_npu.runtime.backend import Backend, BackendName
from tfbert_npu.runtime.files import Artifact, VerifiedFile

Provider = Callable[[Artifact, VerifiedFile, str | os.PathLike[str] | None], Backend]
"""Makes a backend of an artifact, its ONNX file, and the toolchain that the caller named."""

_HOMES: dict[BackendName, str] = {"simulator": "tfbert_npu.rknn.simulator"}
_providers: dict[BackendName, Provider] = {}

AnyProvider = TypeVar("AnyProvider", bound=Provider)


def provides(name: BackendName) -> Callable[[AnyProvider], AnyProvider]:
    """Decorator of what makes the backend of that name."""

    def register(provider: AnyProvider) -> AnyProvider:
        _providers[name] = provider
        return provider

    return register


def provider_of(name: BackendName) -> Provider:
    """What makes the backend of that name."""
    if name not in _providers:
        importlib.import_module(_HOMES[name])
    return _providers[name]
