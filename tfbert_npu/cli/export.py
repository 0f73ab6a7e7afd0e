"""`tfbert-npu export rknn|onnx|saved-model`: a model for the NPU, as ONNX, or as a SavedModel."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

import click

import tfbert_npu
from tfbert_npu.artifact.manifest import Layout, Precision
from tfbert_npu.cli.inspect import show_manifest
from tfbert_npu.cli.progress import Steps
from tfbert_npu.errors import require
from tfbert_npu.heads import heads
from tfbert_npu.platforms import PLATFORMS
from tfbert_npu.quantize.calibration import read_texts
from tfbert_npu.rknn.worker import Limits

FORMATS = ("rknn", "onnx", "saved-model")


class _Formats(click.Group):
    """Says how `export MODEL OUT --format ...` of 0.1 is written today."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in FORMATS:
            words = [part for arg in args for part in arg.split("=", 1)]
            after = words[words.index("--format") + 1 :] if "--format" in words else []
            wanted = after[0] if after and after[0] in FORMATS else "rknn"
            ctx.fail(
                f"{args[0]!r} is no format (known are {', '.join(FORMATS)}); the format is a command of its "
                f"own and --format is gone: tfbert-npu export {wanted} MODEL OUT"
            )
        return super().resolve_command(ctx, args)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if args and args[0].startswith("-") and args[0] not in ("-h", "--help"):
            self.resolve_command(ctx, args)
        return super().parse_args(ctx, args)


class _Shapes(click.ParamType):
    """`1x128,4x256` as ((1, 128), (4, 256)); `buckets` as it stands."""

    name = "shapes"

    def convert(self, value: Any, param: Any, ctx: Any) -> tuple[tuple[int, int], ...] | str:
        if value == "buckets":
            return "buckets"
        parts = value if isinstance(value, (list, tuple)) else str(value).split(",")
        if parts and isinstance(parts[0], tuple):
            return tuple(parts)
        shapes = []
        for part in parts:
            batch, sign, length = str(part).strip().partition("x")
            if not (sign and batch.isdecimal() and length.isdecimal()):
                self.fail(f"{part!r} is no BATCHxLENGTH, such as 1x128, nor 'buckets'", param, ctx)
            shapes.append((int(batch), int(length)))
        return tuple(shapes)


class _Names(click.ParamType):
    """`pooled_output,sequence_output` as a tuple."""

    name = "names"

    def convert(self, value: Any, param: Any, ctx: Any) -> tuple[str, ...]:
        parts = value if isinstance(value, (list, tuple)) else str(value).split(",")
        return tuple(str(part).strip() for part in parts)


def _read_config(ctx: click.Context, param: click.Parameter, value: Path | None) -> None:
    """Take options from a YAML file; what stands on the command line goes before it."""
    if value is None:
        return
    yaml = require("yaml", "export")

    try:
        content = yaml.safe_load(value.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise click.BadParameter(f"{value} is not YAML ({' '.join(str(error).split())})") from error
    if not isinstance(content, dict):
        raise click.BadParameter(f"{value} must hold options by name, such as 'platform: rk3588'")
    known = {option.name for option in ctx.command.params if option.name not in ("config", "help")}
    options = {str(name).replace("-", "_"): setting for name, setting in content.items()}
    strange = sorted(options.keys() - known)
    if "format" in strange:
        raise click.BadParameter(
            f"{value} holds 'format', which is gone; take it out and call tfbert-npu export "
            f"{options['format']} --config {value.name}"
        )
    if strange:
        raise click.BadParameter(
            f"{value} holds unknown options {', '.join(strange)}; "
            f"known are {', '.join(sorted(filter(None, known)))}"
        )
    ctx.default_map = {**(ctx.default_map or {}), **options}


def _lines(path: Path | None) -> tuple[str, ...] | None:
    if path is None:
        return None
    texts = read_texts(path)
    if not texts:
        raise ValueError(f"{path} holds no text; put one on each line")
    return texts


@click.group(cls=_Formats)
def export() -> None:
    """Write a model for the NPU (rknn), as ONNX (onnx), or as a TF-Hub SavedModel (saved-model)."""


_MODEL = click.argument("model")
_OUT = click.argument("out", type=click.Path(path_type=Path))
_CONFIG = click.option(
    "--config",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    is_eager=True,
    expose_value=False,
    callback=_read_config,
    help="YAML file with any of these options, and model and out.",
)
_HEAD = click.option(
    "--head",
    type=click.Choice([head.name for head in heads()]),
    help="By default what the checkpoint's config.json says.",
)
_OUTPUTS = click.option(
    "--outputs", type=_Names(), help="Names separated by commas; encoder_outputs is every layer."
)
_EMBEDDINGS = click.option(
    "--embeddings",
    type=click.Choice(["inside", "host"]),
    default="inside",
    show_default=True,
    help="host: the CPU looks them up, and the file is smaller.",
)
_POSITIONS = click.option(
    "--masked-positions", type=click.IntRange(min=1), help="Logits at that many positions only."
)
_PACKED = click.option(
    "--packed", is_flag=True, help="Several short texts in a row, each seeing itself alone; for bulk work."
)
_TOKENIZER = click.option(
    "--tokenizer",
    type=click.Path(file_okay=False, path_type=Path),
    help="Directory with vocab.txt or tokenizer.json.",
)
_OVERWRITE = click.option("--overwrite", is_flag=True, help="Replace OUT if it holds something.")


@export.command()
@_MODEL
@_OUT
@_CONFIG
@click.option(
    "--platform", type=click.Choice(PLATFORMS), default="rk3588", show_default=True, help="The board's SoC."
)
@click.option(
    "--shapes",
    type=_Shapes(),
    default="1x128",
    show_default=True,
    help="BATCHxLENGTH, several separated by commas; or buckets, for texts of any length up to 256.",
)
@click.option(
    "--precision",
    type=click.Choice(get_args(Precision)),
    default="fp16",
    show_default=True,
    help="Of weights (w) and activations (a) in the NPU's products.",
)
@click.option(
    "--calibration",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Texts for int8, one per line; by default our own.",
)
@_HEAD
@_OUTPUTS
@click.option(
    "--layout",
    type=click.Choice(get_args(Layout)),
    default="dynamic",
    show_default=True,
    help="One file for all shapes, or static: a file for each.",
)
@_EMBEDDINGS
@_POSITIONS
@_PACKED
@click.option(
    "--optimization-level",
    type=click.IntRange(0, 3),
    default=3,
    show_default=True,
    help="The compiler's; lower it if the gate fails.",
)
@click.option("--single-core", is_flag=True, help="For one core of an RK3588 only.")
@_TOKENIZER
@click.option(
    "--texts",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Texts for the gate, one per line; by default our own.",
)
@click.option(
    "--max-cost",
    type=click.FloatRange(0, 1),
    help="For int8: the best quality within this share of float16's cycles.",
)
@click.option("--min-cosine", type=click.FloatRange(-1, 1), help="The gate's threshold.")
@click.option("--strict", is_flag=True, help="Fail if the CPU computes what the NPU should.")
@_OVERWRITE
@click.option("--python", help="Interpreter or environment that has rknn-toolkit2.")
@click.option("--toolkit-version", help="Demand this version of rknn-toolkit2.")
@click.option(
    "--time-limit",
    type=click.FloatRange(min=1),
    default=1800.0,
    show_default=True,
    metavar="SECONDS",
    help="Of the compiler, for each file.",
)
@click.option(
    "--memory-limit",
    type=click.FloatRange(min=0.1),
    default=16.0,
    show_default=True,
    metavar="GIB",
    help="Of the compiler.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the manifest.")
def rknn(
    model: str,
    out: Path,
    platform: str,
    calibration: Path | None,
    texts: Path | None,
    time_limit: float,
    memory_limit: float,
    as_json: bool,
    **options: Any,
) -> None:
    """Compile MODEL, a directory or a hub repository, for the NPU into the directory OUT.

    OUT appears whole or not at all.

    Example: tfbert-npu export rknn out/mine out/mine-rk3588 --shapes buckets
    """
    limits = Limits(time_limit, int(memory_limit * 2**30))
    with Steps() as say:
        manifest = tfbert_npu.export_rknn(
            model,
            out,
            platform,
            calibration=_lines(calibration),
            texts=_lines(texts),
            limits=limits,
            on_progress=say,
            **options,
        )
    if as_json:
        click.echo(manifest.to_json(), nl=False)
        return
    show_manifest(out, manifest)


@export.command()
@_MODEL
@_OUT
@_CONFIG
@_HEAD
@_OUTPUTS
@_EMBEDDINGS
@_POSITIONS
@_PACKED
@_TOKENIZER
@_OVERWRITE
def onnx(model: str, out: Path, overwrite: bool, **options: Any) -> None:
    """Write MODEL, a directory or a hub repository, as ONNX.

    OUT is a file if its name ends in .onnx; otherwise a directory that embed and the other commands take.

    Example: tfbert-npu export onnx out/mine out/mine-onnx
    """
    if out.is_file() and not overwrite:
        raise FileExistsError(f"{out} exists; choose another file or pass --overwrite")
    with Steps() as say:
        say("writing ONNX")
        tfbert_npu.export_onnx(model, out, overwrite=overwrite, **options)
    file = out / "model.onnx" if out.is_dir() else out
    click.echo(f"{file}: {file.stat().st_size / 2**20:.1f} MB, any batch and length")


@export.command("saved-model")
@_MODEL
@_OUT
@_CONFIG
@_OVERWRITE
def saved_model(model: str, out: Path, overwrite: bool) -> None:
    """Write MODEL, a directory or a hub repository, as a TF-Hub SavedModel: its task head, or its encoder.

    Example: tfbert-npu export saved-model out/mine out/mine-tfhub
    """
    for module in ("tensorflow", "keras"):
        require(module, "tf")
    tfbert_npu.export_saved_model(model, out, overwrite=overwrite)
    click.echo(f"{out}: a TF-Hub SavedModel")
