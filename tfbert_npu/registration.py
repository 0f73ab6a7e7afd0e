"""Keras layers that `keras.models.load_model` finds, though `import tfbert_npu` imports no Keras.

Keras rebuilds a custom layer from a `.keras` file only if the layer's class has been registered, which its
module does when it is imported. This package loads its names lazily, so it sees to the rest: whoever has
imported both `keras` and `tfbert_npu`, in either order, can load our layers.
"""

from __future__ import annotations

import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import sys
from collections.abc import Sequence
from types import ModuleType

from tfbert_npu.errors import MissingExtraError

# Every module that registers Keras classes.
KERAS_MODULES = (
    "tfbert_npu.models.encoder",
    "tfbert_npu.models.heads",
    "tfbert_npu.hub.trusted",
    "tfbert_npu.models.mlm",
    "tfbert_npu.preprocess.layer",
    "tfbert_npu.train.optimizer",
    "tfbert_npu.train.schedule",
)


def register_layers() -> None:
    """Import every module that registers Keras classes; one whose extra is not installed is left out."""
    for name in KERAS_MODULES:
        try:
            importlib.import_module(name)
        except MissingExtraError:
            continue  # whoever asks for the class itself is told what to install


def register_with_keras() -> None:
    """Register our layers now if Keras is loaded, or else as soon as somebody loads it."""
    if "keras" in sys.modules:
        register_layers()
    else:
        sys.meta_path.insert(0, _AfterKeras())


class _AfterKeras(importlib.abc.MetaPathFinder):
    """Finds `keras` where the other finders do, and has our layers registered once it is loaded.

    It stays until then: whoever only asks whether Keras is there, by `importlib.util.find_spec`, does not
    load it.
    """

    _finding = False

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname != "keras" or self._finding:
            return None
        self._finding = True
        try:
            spec = importlib.util.find_spec("keras")
        finally:
            self._finding = False
        if spec is None or spec.loader is None:
            return spec
        execute = spec.loader.exec_module

        def execute_then_register(module: ModuleType) -> None:
            execute(module)
            if self in sys.meta_path:
                sys.meta_path.remove(self)
            # One of our own modules may be what imports Keras, and it is not ready to be imported again;
            # then `tfbert_npu.__getattr__` registers the layers when that module is complete.
            if not any(name in sys.modules for name in KERAS_MODULES):
                register_layers()

        spec.loader.exec_module = execute_then_register  # type: ignore[method-assign]
        return spec
