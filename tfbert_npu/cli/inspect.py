"""`tfbert-npu inspect`: what is in an artifact directory or a `.rknn` file."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import click

from tfbert_npu.artifact.manifest import MANIFEST, Manifest
from tfbert_npu.artifact.rk_transformers import rknn_files
from tfbert_npu.artifact.rknn_file import RknnFile, read_rknn
from tfbert_npu.errors import ArtifactError
from tfbert_npu.export.picture import draw_costs, draw_search
from tfbert_npu.rknn.time_model import described
from tfbert_npu.runtime.files import is_of_rk_transformers


@click.command()
@click.argument("path", type=click.Path(exists=True, path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print what was found as JSON.")
@click.option("--operators", is_flag=True, help="List every operator of every shape.")
@click.option(
    "--picture",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Draw cycles and memory traffic per layer and kind of operator (PNG, SVG or PDF).",
)
@click.option(
    "--frontier",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Draw cost against quality of what a search for int8 measured (PNG, SVG or PDF).",
)
@click.option("--verify", is_flag=True, help="Compare the files' SHA-256 with the manifest.")
def inspect(
    path: Path, as_json: bool, operators: bool, picture: Path | None, frontier: Path | None, verify: bool
) -> None:
    """Show PATH, an artifact directory or a .rknn file, without vendor code.

    Of a search that failed, PATH.failed takes --frontier.

    Example: tfbert-npu inspect out/mine-rk3588 --operators
    """
    if frontier is not None:
        draw_search(_search(path), frontier)
        if not (path / MANIFEST).exists():
            return
    if path.is_file():
        if operators or picture or verify:
            raise click.UsageError("a .rknn file alone holds no report; give the artifact directory")
        header = read_rknn(path)
        if as_json:
            click.echo(json.dumps({**dataclasses.asdict(header), "path": str(path)}))
        else:
            _show_file(header)
        return
    if is_of_rk_transformers(path):
        _show_foreign(path, as_json, operators or picture is not None or verify)
        return
    manifest = Manifest.read(path)
    if verify:
        manifest.check_files(path)
    if picture is not None:
        draw_costs(_rows(path), picture)
    if as_json:
        click.echo(manifest.to_json(), nl=False)
        return
    show_manifest(path, manifest)
    if operators:
        _show_operators(_rows(path))


def _show_foreign(path: Path, as_json: bool, wants_report: bool) -> None:
    """List the files of a directory that another exporter wrote."""
    if wants_report:
        raise click.UsageError(f"{path} has no manifest.json of ours, so there is no report to show")
    headers = [read_rknn(path / name) for name in rknn_files(path)]
    if as_json:
        click.echo(json.dumps([{**dataclasses.asdict(one), "path": str(one.path)} for one in headers]))
        return
    click.echo(f"{path}: {len(headers)} .rknn file{'s' * (len(headers) > 1)}, no manifest.json")
    for header in headers:
        _show_file(header)
    if len(headers) > 1:
        click.echo("name the one to run with --file")


def show_manifest(path: Path, manifest: Manifest) -> None:
    """Print an artifact's figures as tables."""
    from rich.box import SIMPLE
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    console = Console()
    build = manifest.build
    compiler = (
        f"{build.get('target_platform', '')}, rknn-toolkit2 {build.get('toolkit_version', '')}"
        if manifest.rknn_files
        else "ONNX for the CPU"
    )
    console.print(
        f"{path}: {manifest.head}, {manifest.precision}, {compiler}, "
        f"embeddings {manifest.embeddings}, {manifest.layout}",
        markup=False,
        highlight=False,
        soft_wrap=True,
    )
    table = Table(title="files", title_justify="left")
    for heading in ("file", "MB", "shapes", "inputs", "outputs"):
        table.add_column(heading)
    for model in manifest.models:
        table.add_row(
            model.path,
            f"{model.size / 2**20:.1f}",
            " ".join(f"{batch}x{length}" for batch, length in model.shapes) or "any",
            " ".join(spec.name for spec in model.inputs),
            " ".join(spec.name for spec in model.outputs),
        )
    console.print(table)
    table = Table(title=f"agreement with {manifest.gate.get('reference', 'the model')}", title_justify="left")
    for heading in ("output", "cosine", "largest difference"):
        table.add_column(heading)
    for name, one in manifest.parity.items():
        table.add_row(name, f"{one['cosine']:.6f}", f"{one['max_abs']:.2g}")
    console.print(table)
    headings = (
        "shape",
        "ms [predicted]",
        "cycles [compiler]",
        "MAC use",
        "MB moved",
        "ops, NPU / CPU",
        "MB memory",
    )
    rows = [
        (
            shape,
            described(cost.get("predicted")),
            f"{cost['cycles']:,.0f}".replace(",", " "),
            f"{cost['utilisation']:.0%}",
            f"{cost['mb_moved']:.1f}",
            f"{cost['npu_ops']:.0f} / {cost['cpu_ops']:.0f}",
            f"{cost['internal_mb'] + cost['weight_mb']:.1f}",
        )
        for shape, cost in manifest.cost.items()
    ]
    table = Table(title="cost of a call on one core", title_justify="left", box=SIMPLE, pad_edge=False)
    for place, heading in enumerate(headings):
        # A heading may go over several lines on a narrow terminal, a figure may not.
        widest = max(map(len, (*heading.split(), *(row[place] for row in rows))))
        table.add_column(escape(heading), justify="right", min_width=widest)
    for row in rows:
        table.add_row(*row)
    console.print(table)
    for warning in build.get("warnings", ()):
        console.print(f"warning: {warning}", style="yellow", markup=False, soft_wrap=True)


def _show_file(header: RknnFile) -> None:
    click.echo(
        f"{header.path}: {header.size / 2**20:.1f} MB, {'/'.join(header.platforms)}, "
        f"rknn-toolkit2 {header.toolkit_version}, format {header.format_version}"
    )
    for side, specs in (("input", header.inputs), ("output", header.outputs)):
        for spec in specs:
            shape = "x".join(map(str, spec.shape))
            click.echo(f"  {side} {spec.name} {spec.dtype or '?'} {shape}")
    if len(header.input_shapes) > 1:
        for shapes in header.input_shapes:
            click.echo("  shapes " + " ".join("x".join(map(str, shape)) for shape in shapes))
    if header.custom_string:
        click.echo(f"  custom string {header.custom_string!r}")


def _search(path: Path) -> dict[str, Any]:
    """What a search measured, of an artifact or of an export that failed."""
    if path.is_file():
        raise click.UsageError("a .rknn file alone knows no search; give the artifact directory")
    if (path / "search.json").is_file():
        return _json(path / "search.json")
    found = dict(Manifest.read(path).build.get("quantization", {}))
    if "frontier" not in found:
        raise click.UsageError(
            f"{path} was exported without a search; export with --precision w8a8 and --max-cost or "
            "--min-cosine"
        )
    return found


def _rows(path: Path) -> dict[str, list[dict[str, Any]]]:
    if not (path / "cost.json").is_file():
        raise ArtifactError(f"{path} holds no cost.json", "export it again")
    return _json(path / "cost.json")


def _json(file: Path) -> dict[str, Any]:
    try:
        content: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ArtifactError(f"{file} is not JSON ({error})", "export it again") from error
    return content


def _show_operators(rows: dict[str, list[dict[str, Any]]]) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console()
    for shape, operators in rows.items():
        table = Table(title=shape, title_justify="left")
        for heading in ("operator", "kind", "dtype", "on", "cycles", "KiB", "outputs"):
            table.add_column(heading)
        for row in operators:
            table.add_row(
                row["name"],
                row["kind"],
                row["dtype"],
                row["target"],
                str(row["cycles"]),
                str(row["kib"]),
                row["outputs"],
            )
        console.print(table)
