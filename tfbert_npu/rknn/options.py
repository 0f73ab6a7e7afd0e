"""The options of `export_rknn`, checked before any work is done."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from tfbert_npu.artifact.manifest import Layout, Precision
from tfbert_npu.config import BertConfig
from tfbert_npu.onnx.model import EmbeddingPlace
from tfbert_npu.platforms import PLATFORMS, Platform, platform_named
from tfbert_npu.quantize.grid import WEIGHT_ONLY, Grid

OptimizationLevel = Literal[0, 1, 2, 3]

Shape = tuple[int, int]

BUCKET_LENGTHS = (16, 24, 32, 48, 64, 128, 256)
"""Lengths in tokens that `shapes="buckets"` compiles. Sentences are short: of 2000 questions of BANKING77
half have 13 tokens or fewer, and these compute 1.29 times the real tokens (tests/runtime/test_router.py)."""

# The compiler splits a product whose input is larger than this, in bytes for one row of the batch: products
# of 512 and of 768 values by 128 and 64 tokens in float16 stay whole, one of 768 by 128 is split.
_WHOLE_INPUT = 128 * 1024
_TILE = 128
"""Tokens that it takes at a time: at 256 it splits as at 128."""


def buckets(config: BertConfig) -> tuple[Shape, ...]:
    """The shapes of `shapes="buckets"`: batch 1 at each of `BUCKET_LENGTHS` that the model has positions for.

    Larger batches would save no padding: the router fills a batch with rows of like length, and of those each
    fits its own bucket as well.
    """
    return tuple((1, length) for length in BUCKET_LENGTHS if length <= config.max_position_embeddings)


@dataclass(frozen=True)
class RknnOptions:
    """What is compiled, and how."""

    platform: Platform
    shapes: tuple[Shape, ...]
    """(batch, length) pairs, no two the same."""
    precision: Precision = "fp16"
    layout: Layout = "dynamic"
    embeddings: EmbeddingPlace = "inside"
    outputs: tuple[str, ...] | None = None
    masked_positions: int | None = None
    optimization_level: OptimizationLevel = 3
    single_core: bool = False
    """Compile for one core of an RK3588 only, which makes the file smaller (the vendor's
    `single_core_mode`)."""
    packed: bool = False
    """Several texts in a row, see `artifact.packing`."""
    compiler: dict[str, Any] = field(default_factory=dict)
    """Further arguments of the vendor's `RKNN.config`."""

    @property
    def weight_grid(self) -> Grid | None:
        """The grid of the weights, where these alone are quantized."""
        return WEIGHT_ONLY.get(self.precision)

    @property
    def is_dynamic(self) -> bool:
        """Whether one file holds several shapes."""
        return self.layout == "dynamic" and len(self.shapes) > 1

    def files(self) -> list[tuple[str, tuple[Shape, ...]]]:
        """Names of the .rknn files, as rk-transformers names them, and the shapes of each."""
        if self.layout == "dynamic":
            return [("model.rknn", self.shapes)]
        return [(f"model_b{batch}_s{length}.rknn", ((batch, length),)) for batch, length in self.shapes]

    def ffn_slices(self, config: BertConfig) -> int:
        """Parts of each feed-forward block, see `graph.encoder.feed_forward`.

        One in a static file: the compiler's own split costs fewer operators. In a dynamic file as many as
        make the parts fit the compiler's buffer at the greatest length, so that all lengths share weights.
        """
        if not self.is_dynamic or self.precision != "fp16":
            return 1
        longest = max(length for _, length in self.shapes)
        for slices in range(1, config.intermediate_size // 32 + 1):
            width, rest = divmod(config.intermediate_size, slices)
            if rest == 0 and width % 32 == 0 and width * min(longest, _TILE) * 2 <= _WHOLE_INPUT:
                return slices
        return 1


def checked_options(
    config: BertConfig,
    *,
    target_platform: str,
    shapes: Sequence[Sequence[int]] | str,
    precision: str,
    layout: str,
    embeddings: str,
    outputs: Sequence[str] | None,
    masked_positions: int | None,
    optimization_level: int,
    single_core: bool,
    compiler: dict[str, Any] | None,
    packed: bool = False,
) -> RknnOptions:
    """Options made of a caller's arguments.

    Raises:
        ValueError: One is unknown or impossible; the message names the allowed ones.
    """
    platform = platform_named(target_platform)
    for name, value, allowed in (
        ("precision", precision, get_args(Precision)),
        ("layout", layout, get_args(Layout)),
        ("embeddings", embeddings, get_args(EmbeddingPlace)),
        ("optimization_level", optimization_level, get_args(OptimizationLevel)),
    ):
        if value not in allowed:
            raise ValueError(f"{name} must be one of {allowed}, got {value!r}")
    if precision not in platform.precisions:
        able = [name for name in PLATFORMS if precision in platform_named(name).precisions]
        raise ValueError(
            f"precision {precision!r} is for {', '.join(able)}; on {platform.name} use "
            f"{' or '.join(platform.precisions)}"
        )
    if single_core and platform.target != "rk3588":
        raise ValueError(f"single_core is for rk3588 only, not for {platform.name}")
    if masked_positions is not None and masked_positions < 1:
        raise ValueError(f"masked_positions must be at least 1, got {masked_positions}")
    checked = _checked_shapes(config, shapes)
    if packed:
        _check_packed(checked, precision, layout, masked_positions)
        embeddings = "host"
    if precision == "w8a8" and layout == "dynamic" and len(checked) > 1:
        # The vendor's hybrid quantization compiles the largest of several shapes only.
        raise ValueError(
            f'{precision} files hold one shape each and {len(checked)} are wanted; pass layout="static" '
            "(--layout static) for a file for each"
        )
    return RknnOptions(
        platform=platform,
        shapes=checked,
        precision=precision,  # type: ignore[arg-type]
        layout=layout,  # type: ignore[arg-type]
        embeddings=embeddings,  # type: ignore[arg-type]
        outputs=None if outputs is None else tuple(outputs),
        masked_positions=masked_positions,
        optimization_level=optimization_level,  # type: ignore[arg-type]
        single_core=single_core,
        compiler=dict(compiler or {}),
        packed=packed,
    )


def _check_packed(shapes: Sequence[Shape], precision: str, layout: str, masked_positions: int | None) -> None:
    if any(batch > 1 for batch, _ in shapes):
        raise ValueError("a packed row is the batch; give shapes of batch 1, such as 1x128")
    if precision != "fp16":
        raise ValueError(f"packed texts are computed in fp16, not in {precision}")
    if masked_positions is not None:
        raise ValueError("masked_positions are for one text in a row; leave out packed or masked_positions")
    if layout == "dynamic" and len(shapes) > 1:
        # With several lengths in a file the compiler leaves the attention of a [1, S, S] bias unfused.
        raise ValueError('packed files hold one shape each; pass layout="static" (--layout static)')


def _checked_shapes(config: BertConfig, shapes: Sequence[Sequence[int]] | str) -> tuple[Shape, ...]:
    if isinstance(shapes, str):
        if shapes != "buckets":
            raise ValueError(f"shapes must be pairs (batch, length) or 'buckets', got {shapes!r}")
        shapes = buckets(config)
    checked: list[Shape] = []
    for shape in shapes:
        if len(shape) != 2 or not all(isinstance(n, int) and not isinstance(n, bool) for n in shape):
            raise ValueError(f"shapes must be pairs (batch, length) of whole numbers, got {shape!r}")
        batch, length = shape
        if batch < 1 or length < 1:
            raise ValueError(f"batch and length must be at least 1, got {batch}x{length}")
        if length > config.max_position_embeddings:
            raise ValueError(
                f"shape {batch}x{length} is longer than the model's max_position_embeddings "
                f"{config.max_position_embeddings}; choose a shorter one"
            )
        if (batch, length) in checked:
            raise ValueError(f"shape {batch}x{length} is given twice")
        checked.append((batch, length))
    if not checked:
        raise ValueError("shapes must hold at least one (batch, length)")
    return tuple(sorted(checked, key=lambda shape: (shape[1], shape[0])))
