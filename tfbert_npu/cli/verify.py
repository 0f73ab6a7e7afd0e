"""`tfbert-npu verify`: does this machine compute what was exported?"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tfbert_npu.runtime.files import Artifact
from tfbert_npu.runtime.load import Options
from tfbert_npu.runtime.verify import verify as run

if TYPE_CHECKING:
    from tfbert_npu.runtime.verify import Verification


@click.command()
@click.argument("artifact", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option(
    "--backend",
    type=click.Choice(["auto", "rknn", "simulator", "onnx", "openvino"]),
    default="auto",
    show_default=True,
    help="What computes; auto is the NPU where there is one, else the CPU.",
)
@click.option("--file", metavar="NAME", help="One of the directory's .rknn files; by default all.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def verify(artifact: Path, backend: Any, file: str | None, as_json: bool) -> None:
    """Run the reference inputs of ARTIFACT at every shape and compare with the model that was exported.

    The exit code is 1 if an output is not what it was; each line then says what to suspect.

    Example: tfbert-npu verify minilm-rk3588
    """
    found = run(Artifact.open(artifact, file), Options(backend=backend, file=file))
    if as_json:
        click.echo(json.dumps(found.as_dict(), indent=2))
    else:
        _print(found)
    if not found.passed:
        sys.exit(1)


def _print(found: Verification) -> None:
    from rich.console import Console
    from rich.table import Table

    title = f"{found.artifact} on {found.runs_on}: the worst text's difference from the float32 model"
    table = Table(title=title, title_justify="left")
    table.add_column("shape")
    table.add_column("output", no_wrap=True)
    for heading in ("texts", "cosine", "largest", "relative", "allowed"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("")
    for verdict in found.verdicts:
        table.add_row(
            f"{verdict.shape[0]}x{verdict.shape[1]}",
            verdict.output,
            str(verdict.texts),
            f"{verdict.cosine:.6f}",
            f"{verdict.max_abs:.2g}",
            f"{verdict.relative:.2%}",
            f"{verdict.most_relative:.2%}",
            "passed" if verdict.passed else "FAILED",
        )
    Console(highlight=False).print(table)
    for problem in found.problems:
        click.echo(f"failed: {problem}")
    if found.passed:
        click.echo("Verified: every output of every shape is as it was exported.")
