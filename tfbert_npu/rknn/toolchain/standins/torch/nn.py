"""Stand-in for torch.nn: the base class that rknn-toolkit2 derives from when it is imported."""


class Module:
    """A class that can be derived from and not be used."""

    def __init__(self, *args: object, **kwargs: object) -> None:
        raise ImportError(
            "rknn-toolkit2 made a torch module, which needs the real torch: "
            "run `tfbert-npu toolchain install --with-torch`"
        )
