"""Compiled functions of the models around a layer, which hold its call as it was when they were traced."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from typing import Any


def forget_traces(encoder: Any) -> None:
    """Let every model around the layer trace its compiled functions again.

    A layer does not know the models that hold it. There are few models and this happens seldom, so they are
    looked for among all objects.
    """
    import keras

    for candidate in gc.get_objects():
        # `type`, not `isinstance`: lazy modules and proxies answer `__class__` by loading something.
        if not issubclass(type(candidate), keras.Model):
            continue
        if any(layer is encoder for layer in layers_within(candidate)):
            for name in ("predict_function", "test_function", "train_function"):
                if getattr(candidate, name, None) is not None:
                    setattr(candidate, name, None)


def layers_within(model: Any) -> Iterator[Any]:
    """A layer or model, and every layer inside of it."""
    waiting, seen = [model], set()
    while waiting:
        layer = waiting.pop()
        if id(layer) in seen:
            continue
        seen.add(id(layer))
        yield layer
        waiting += getattr(layer, "layers", ())
        waiting += getattr(layer, "_layers", ())
