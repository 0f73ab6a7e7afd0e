"""`tfbert-npu doctor`: is this machine ready for the NPU?"""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

import click

from tfbert_npu.runtime.doctor import examine

if TYPE_CHECKING:
    from tfbert_npu.runtime.doctor import Report


@click.command()
@click.argument("artifact", required=False)
@click.option("--file", metavar="NAME", help="The one of ARTIFACT's .rknn files that is to run.")
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON.")
def doctor(artifact: str | None, file: str | None, as_json: bool) -> None:
    """Report on NPU, driver, runtime, clocks, memory and packages, and on ARTIFACT, a directory to run here.

    The exit code is 1 if something stands in the way, each with its remedy; a machine without an NPU is none.

    Example: tfbert-npu doctor out/mine-rk3588
    """
    report = examine(artifact, file=file)
    if as_json:
        click.echo(json.dumps(report.to_dict(), indent=2))
    else:
        _print(report)
    if not report.healthy:
        sys.exit(1)


def _print(report: Report) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(show_header=False, box=None, pad_edge=False)
    table.add_row("Machine", " ".join([report.machine, *report.board]))
    table.add_row("NPU", f"{report.soc}, {report.cores} cores" if report.soc else "none")
    if report.soc:
        table.add_row("Driver", report.driver_version or "does not say")
        library = f"{report.library_version or 'unknown'} ({report.library})" if report.library else "missing"
        table.add_row("librknnrt", library)
    for clock in report.clocks:
        speed = f"{clock.current_hz // 10**6} of {clock.most_hz // 10**6} MHz, {clock.governor}"
        table.add_row(clock.name, speed)
    if report.free_memory_mb is not None:
        table.add_row("Free memory", f"{report.free_memory_mb} MiB")
    for name, version in report.packages.items():
        table.add_row(name, version or "-")
    if report.artifact is not None:
        for name, value in report.artifact.items():
            table.add_row(f"artifact: {name}", _text(value))
    console = Console(highlight=False)
    console.print(table)
    for finding in report.findings:
        click.echo(f"{finding.level}: {finding.what}; {finding.remedy}")
    click.echo(f"Verdict: {report.verdict}")


def _text(value: Any) -> str:
    if not isinstance(value, list):
        return str(value)
    return ", ".join("x".join(map(str, item)) if isinstance(item, list) else str(item) for item in value)
