"""Stand-in for torch: the names that rknn-toolkit2 takes on import, and an error for any other."""

__version__ = "0.0.0+standin"


class no_grad:  # noqa: N801 - torch's own name
    """Decorates a function with itself."""

    def __call__(self, function: object) -> object:
        """Return the function as it is."""
        return function


class Tensor:
    """Stands in annotations of rknn-toolkit2 2.3.2."""


def __getattr__(name: str) -> object:
    if name.startswith("__"):
        raise AttributeError(name)
    raise ImportError(
        f"rknn-toolkit2 asked for torch.{name}, which needs the real torch: "
        "run `tfbert-npu toolchain install --with-torch`"
    )
