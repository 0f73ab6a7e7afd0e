"""`tfbert-npu profile`: what an artifact takes on this board, operator by operator."""

from __future__ import annotations

import json
from pathlib import Path

import click
from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from tfbert_npu.rknn.perf_table import by_kind
from tfbert_npu.rknn.profile import Profile
from tfbert_npu.rknn.profile import profile as run
from tfbert_npu.rknn.time_model import described
from tfbert_npu.runtime.files import Artifact


@click.command()
@click.argument("artifact", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--file", metavar="NAME", help="One of the directory's .rknn files; by default all.")
@click.option(
    "--calls",
    type=click.IntRange(min=1),
    default=30,
    show_default=True,
    help="Of each shape on each core, on all cores at once, and on all cores together.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON, operators included.")
def profile(artifact: Path, file: str | None, calls: int, as_json: bool) -> None:
    """Time every shape of ARTIFACT on this board, beside the predicted time.

    On a machine without an NPU it prints the predicted time alone. The JSON holds the operators as rows of
    the table that the prediction is fitted to, so that it can be reported as it is.

    Example: tfbert-npu profile minilm-rk3588 --json > rock-5b.json
    """
    found = run(Artifact.open(artifact, file), calls)
    if as_json:
        click.echo(json.dumps(found.as_dict(), indent=1))
    else:
        _print(found)


def _print(found: Profile) -> None:
    console = Console(highlight=False)
    if not found.measured:
        table = Table("shape", "predicted ms", title=r"a call on one core \[predicted]", box=SIMPLE)
        for shape, prediction in found.predicted.items():
            table.add_row(shape, described(prediction))
        console.print(table)
        click.echo("There is no Rockchip NPU here; run this on the board to measure.")
        return
    table = Table(title=r"\[board]", box=SIMPLE)
    for heading in ("shape", "on", "wall ms", "without Python", "calls/s", r"ms \[predicted]"):
        table.add_column(heading, no_wrap=heading in ("shape", "on"))
    for one in found.calls:
        shape = f"{one.shape[0]}x{one.shape[1]}"
        alone = one.cores.startswith("core ")
        table.add_row(
            shape,
            one.cores,
            f"{one.wall_ms:.2f}",
            f"{one.runtime_ms:.2f}",
            f"{one.calls_per_second:.1f}",
            described(found.predicted.get(shape)) if alone else "",
        )
    console.print(table)
    for shape, rows in found.operators.items():
        _print_operators(console, shape, found, by_kind(rows))
    if not any(found.operators.values()):
        click.echo("librknnrt gave no table of operators for this file.")
    machine = found.machine
    assert machine is not None
    name = machine.board[0] if machine.board else "unknown board"
    click.echo(f"{name}: driver {machine.driver_version}, librknnrt {machine.library_version}")
    for clock in machine.clocks:
        speed = f"{clock.current_hz // 10**6} of {clock.most_hz // 10**6} MHz"
        click.echo(f"{clock.name}: {speed}, governor {clock.governor}")
    for zone, (before, after) in found.temperatures.items():
        click.echo(f"{zone}: {before:.1f} to {after:.1f} °C")


def _print_operators(console: Console, shape: str, found: Profile, took: dict[str, float]) -> None:
    if not took:
        return
    guessed = (found.predicted.get(shape) or {}).get("by_kind", {})
    table = Table("operators", r"ms \[board]", r"ms \[predicted]", title=f"{shape} on core 0", box=SIMPLE)
    for kind, milliseconds in sorted(took.items(), key=lambda item: -item[1]):
        table.add_row(kind, f"{milliseconds:.2f}", f"{guessed[kind]:.2f}" if kind in guessed else "no data")
    console.print(table)
