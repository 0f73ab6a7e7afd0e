"""What stands in the place of an output that the artifact does not give."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from tfbert_npu.errors import TfbertNpuError

_OPERATORS = (
    *("add", "sub", "mul", "truediv", "floordiv", "mod", "pow", "matmul", "and", "or", "xor"),
    *("radd", "rsub", "rmul", "rtruediv", "rfloordiv", "rmod", "rpow", "rmatmul", "rand", "ror", "rxor"),
    *("lt", "le", "gt", "ge", "neg", "pos", "abs", "invert"),
    *("getitem", "iter", "len", "bool", "float", "int", "index", "array", "tf_tensor"),
)


class MissingOutputError(TfbertNpuError, AttributeError):
    """An output was used that the artifact, on which the encoder runs, does not give.

    An AttributeError, for so Python must be answered that asks whether the output has this or that; and
    TensorFlow passes it on, while of a ValueError or TypeError it makes one of its own without the cause.
    """


class MissingOutput:
    """A leaf in the structure of an encoder's outputs that can be passed on, but not computed with.

    Functional models and nests go by the structure, so the place cannot be left out. Whoever makes a tensor
    or an array of it, computes with it or returns it from a graph gets a `MissingOutputError` that says how
    to export the artifact instead; NaN in its place would be found late, or never.

    Args:
        name: Of the output, as `export_rknn` takes it.
        directory: The artifact's.
        gives: Names of the outputs that it has.
        shape: What the output would have, None where it is not known.
        dtype: What it would have.
    """

    def __init__(
        self, name: str, directory: Path, gives: Sequence[str], shape: tuple[int | None, ...], dtype: str
    ) -> None:
        self.shape = shape
        self.dtype = dtype
        self._missing = (name, directory, tuple(gives))

    def __repr__(self) -> str:
        return f"<{self._error()}>"

    def __getattr__(self, attribute: str) -> NoReturn:
        if attribute.startswith("__"):  # Python's own question, as when it copies; there is no such thing
            raise AttributeError(attribute)
        raise self._error()

    def _error(self) -> MissingOutputError:
        name, directory, gives = self.__dict__["_missing"]
        return MissingOutputError(
            f"{name} is not in {directory}, which gives {', '.join(gives)}",
            f"leave it unused, or export with outputs={(*gives, name)}",
        )


def _refuse(self: MissingOutput, *arguments: Any, **options: Any) -> NoReturn:
    raise self._error()


for _operator in _OPERATORS:
    setattr(MissingOutput, f"__{_operator}__", _refuse)
