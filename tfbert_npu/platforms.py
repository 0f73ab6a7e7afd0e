"""The SoCs that this package knows, and what their NPUs can do."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Platform:
    """An SoC with a Rockchip NPU.

    The rates are those by which rknn-toolkit2's compiler counts: products of BERT's sizes take exactly
    (multiply-accumulates / rate) cycles in its table where memory does not hold them up.
    """

    name: str
    target: str
    """What rknn-toolkit2 calls it."""
    cores: int
    fp16_macs: int
    """Multiply-accumulates per cycle and core in float16."""
    int8_macs: int
    """The same in int8."""
    fuses_attention: bool
    """Whether the compiler makes one operator of an attention; elsewhere its softmax runs on the CPU."""
    precisions: tuple[str, ...] = ("fp16", "w8a8")
    """What its compiler takes: weights of 8 or of 4 bits with float16 inputs are for one SoC each."""


_PLATFORMS = {
    platform.name: platform
    for platform in (
        Platform("rk3588", "rk3588", 3, 512, 1024, True),
        Platform("rk3588s", "rk3588", 3, 512, 1024, True),
        Platform("rk3588s2", "rk3588", 3, 512, 1024, True),
        Platform("rk3576", "rk3576", 2, 512, 1024, True, ("fp16", "w8a8", "w4a16")),
        Platform("rk3562", "rk3562", 1, 256, 512, True, ("fp16", "w8a8", "w8a16")),
        Platform("rk3566", "rk3566", 1, 128, 512, False),
        Platform("rk3568", "rk3568", 1, 128, 512, False),
        Platform("rv1126b", "rv1126b", 1, 512, 1024, True),
    )
}
PLATFORMS: tuple[str, ...] = tuple(_PLATFORMS)


def platform_named(name: str) -> Platform:
    """The platform of that name.

    Raises:
        ValueError: It is unknown; the message names the known ones.
    """
    if name not in _PLATFORMS:
        raise ValueError(f"target_platform must be one of {PLATFORMS}, got {name!r}")
    return _PLATFORMS[name]
