"""Libraries whose native code writes to the terminal while they are imported."""

from __future__ import annotations

import importlib.util
import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.machinery import ModuleSpec
from types import ModuleType


def import_quietly(name: str) -> None:
    """Keep what a library writes to standard error while it is imported, whoever imports it, out of sight.

    TensorFlow's start-up lines come before its log level counts. If the import fails, they are shown.
    """
    if name not in sys.modules:
        sys.meta_path.insert(0, _QuietFinder(name))


class _QuietFinder:
    def __init__(self, name: str) -> None:
        self._name = name

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name != self._name:
            return None
        if self in sys.meta_path:
            sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        if spec is None or spec.loader is None:
            return spec
        run = spec.loader.exec_module

        def quietly(module: ModuleType) -> None:
            with _without_stderr():
                run(module)

        spec.loader.exec_module = quietly  # type: ignore[method-assign]
        return spec


@contextmanager
def _without_stderr() -> Iterator[None]:
    """Send the process' standard error, native code's too, to a file; show it after an exception."""
    sys.stderr.flush()
    kept = os.dup(2)
    with tempfile.TemporaryFile() as file:
        os.dup2(file.fileno(), 2)
        try:
            yield
        except BaseException:
            sys.stderr.flush()
            os.dup2(kept, 2)
            file.seek(0)
            os.write(2, file.read())
            raise
        finally:
            sys.stderr.flush()
            os.dup2(kept, 2)
            os.close(kept)
