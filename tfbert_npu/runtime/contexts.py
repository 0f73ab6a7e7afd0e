"""A backend's contexts by the shapes that they were compiled for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Generic, TypeVar

from tfbert_npu.runtime.backend import Arrays, Shape
from tfbert_npu.runtime.errors import BackendError

Context = TypeVar("Context")


class Contexts(Generic[Context]):
    """Which context computes which shape; one may compute several. Its owner sees to the locking.

    Args:
        what: The backend's, for messages.
    """

    def __init__(self, what: str) -> None:
        self._what = what
        self._by_shape: dict[Shape, Context] = {}

    def add(self, shapes: Sequence[Shape], context: Context) -> None:
        """Let a context compute some shapes."""
        self._by_shape.update(dict.fromkeys(shapes, context))

    def of(self, shape: Shape) -> Context:
        """The context that computes a shape.

        Raises:
            BackendError: None does.
        """
        context = self._by_shape.get(shape)
        if context is not None:
            return context
        if not self._by_shape:
            raise BackendError(f"the {self._what} is closed", "load the artifact again")
        batch, length = shape
        raise BackendError(f"{batch}x{length} is none of the compiled shapes {tuple(self._by_shape)}")

    def take(self) -> list[Context]:
        """All contexts, each once; they are the caller's from now on."""
        taken = {id(context): context for context in self._by_shape.values()}
        self._by_shape = {}
        return list(taken.values())


def shape_of(inputs: Arrays) -> Shape:
    """(batch, length) of a call; whatever comes first, ids or summed embeddings, begins with them."""
    batch, length = next(iter(inputs.values())).shape[:2]
    return batch, length
