"""`tfbert-npu export`: a model as SavedModel, ONNX, or a directory for the NPU."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import click

from tfbert_npu.artifact.manifest import Layout, Precision
from tfbert_npu.heads import heads
from tfbert_npu.platforms import PLATFORMS

FORMATS = ("rknn", "onnx", "saved-model")


_HEADS = [head.name for head in heads()]


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
    import yaml

    try:
        content = yaml.safe_load(value.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise click.BadParameter(f"{value} is not YAML ({' '.join(str(error).split())})") from error
    if not isinstance(content, dict):
        raise click.BadParameter(f"{value} must hold options by name, such as 'platform: rk3588'")
    known = {option.name for option in ctx.command.params if option.name not in ("config", "help")}
    options = {str(name).replace("-", "_"): setting for name, setting in content.items()}
    strange = sorted(options.keys() - known)
    if strange:
        raise click.BadParameter(
            f"{value} holds unknown options {', '.join(strange)}; "
            f"known are {', '.join(sorted(filter(None, known)))}"
        )
    ctx.default_map = {**(ctx.default_map or {}), **options}


@click.command()
@click.argument("model")
@click.argument("out", type=click.Path(path_type=Path))
@click.option(
    "--config",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    is_eager=True,
    expose_value=False,
    callback=_read_config,
    help="YAML file with any of these options, and model and out.",
)
@click.option("--format", "format", type=click.Choice(FORMATS), default="rknn", show_default=True)
@click.option("--platform", type=click.Choice(PLATFORMS), default="rk3588", show_default=True)
@click.option(
    "--shapes",
    type=_Shapes(),
    default="1x128",
    show_default=True,
    help="BATCHxLENGTH, several separated by commas; or buckets, for texts of any length up to 256.",
)
@click.option("--precision", type=click.Choice(get_args(Precision)), default="fp16", show_default=True)
@click.option(
    "--calibration",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Texts for int8, one per line; by default our own.",
)
@click.option(
    "--head",
    type=click.Choice(_HEADS),
    help="By default what the checkpoint's config.json says.",
)
@click.option("--outputs", type=_Names(), help="Names separated by commas; encoder_outputs is every layer.")
@click.option("--layout", type=click.Choice(get_args(Layout)), default="dynamic", show_default=True)
@click.option("--embeddings", type=click.Choice(["inside", "host"]), default="inside", show_default=True)
@click.option("--masked-positions", type=click.IntRange(min=1), help="Logits at that many positions only.")
@click.option("--optimization-level", type=click.IntRange(0, 3), default=3, show_default=True)
@click.option("--single-core", is_flag=True, help="For one core of an RK3588 only.")
@click.option(
    "--tokenizer", type=click.Path(file_okay=False, path_type=Path), help="Directory with vocab.txt."
)
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
@click.option("--overwrite", is_flag=True, help="Replace OUT if it holds something.")
@click.option("--python", help="Interpreter or environment that has rknn-toolkit2.")
@click.option("--toolkit-version", help="Demand this version of rknn-toolkit2.")
@click.option(
    "--time-limit", type=click.FloatRange(min=1), default=1800.0, show_default=True, metavar="SECONDS"
)
@click.option(
    "--memory-limit", type=click.FloatRange(min=0.1), default=16.0, show_default=True, metavar="GIB"
)
@click.option("--json", "as_json", is_flag=True, help="Print the manifest.")
def export(model: str, out: Path, format: str, **options: Any) -> None:
    """Export MODEL, a directory or a hub repository, to OUT.

    OUT is a directory for rknn and saved-model, a file for onnx. It appears whole or not at all.
    """
    if format == "rknn":
        _export_rknn(model, out, options)
    elif format == "onnx":
        _export_onnx(model, out, options)
    else:
        _export_saved_model(model, out, options)


def _export_rknn(model: str, out: Path, options: dict[str, Any]) -> None:
    from tfbert_npu.export.rknn import export_rknn
    from tfbert_npu.rknn.worker import Limits

    with Steps() as say:
        manifest = export_rknn(
            model,
            out,
            options["platform"],
            options["shapes"],
            options["precision"],
            _lines(options["calibration"]),
            head=options["head"],
            outputs=options["outputs"],
            layout=options["layout"],
            embeddings=options["embeddings"],
            masked_positions=options["masked_positions"],
            optimization_level=options["optimization_level"],
            single_core=options["single_core"],
            tokenizer=options["tokenizer"],
            texts=_lines(options["texts"]),
            min_cosine=options["min_cosine"],
            max_cost=options["max_cost"],
            strict=options["strict"],
            overwrite=options["overwrite"],
            python=options["python"],
            toolkit_version=options["toolkit_version"],
            limits=Limits(options["time_limit"], int(options["memory_limit"] * 2**30)),
            on_progress=say,
        )
    if options["as_json"]:
        click.echo(manifest.to_json(), nl=False)
        return
    from tfbert_npu.cli.inspect import show_manifest

    show_manifest(out, manifest)


def _export_onnx(model: str, out: Path, options: dict[str, Any]) -> None:
    from tfbert_npu.export.onnx_file import export_onnx

    if out.exists() and not options["overwrite"]:
        raise FileExistsError(f"{out} exists; choose another file or pass --overwrite")
    with Steps() as say:
        say("writing ONNX")
        export_onnx(
            model,
            out,
            options["outputs"],
            head=options["head"],
            embeddings=options["embeddings"],
            masked_positions=options["masked_positions"],
        )
    click.echo(f"{out}: {out.stat().st_size / 2**20:.1f} MB, any batch and length")


def _export_saved_model(model: str, out: Path, options: dict[str, Any]) -> None:
    from tfbert_npu.errors import require

    saved_model = require("tfbert_npu.export.saved_model", "tf")
    if out.is_dir() and any(out.iterdir()) and not options["overwrite"]:
        raise FileExistsError(f"{out} is not empty; choose another directory or pass --overwrite")
    from tfbert_npu.models.encoder import BertEncoder

    saved_model.export_saved_model(BertEncoder.from_pretrained(model), out)
    click.echo(f"{out}: a TF-Hub SavedModel")


def _lines(path: Path | None) -> list[str] | None:
    if path is None:
        return None
    try:
        lines = [line for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8 text ({error.reason} at byte {error.start})") from error
    if not lines:
        raise ValueError(f"{path} holds no text; put one on each line")
    return lines


class Steps:
    """Steps of long work on standard error: a spinner on a terminal, plain lines elsewhere."""

    def __enter__(self) -> Callable[[str], None]:
        from rich.console import Console

        self._console = Console(stderr=True)
        self._status = self._console.status("starting")
        if not self._console.is_terminal:
            return lambda line: click.echo(line, err=True)
        self._status.start()
        return self._say

    def __exit__(self, *error: object) -> None:
        self._status.stop()

    def _say(self, line: str) -> None:
        if line.startswith("warning"):
            self._console.print(line, style="yellow", markup=False)
        else:
            self._status.update(line)
