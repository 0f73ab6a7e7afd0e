"""`tfbert-npu toolchain`: the environment that holds rknn-toolkit2."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import click

from tfbert_npu.cli import SuggestingGroup
from tfbert_npu.cli.progress import Steps
from tfbert_npu.rknn.toolchain import (
    DEFAULT_VERSION,
    SUPPORTED_VERSIONS,
    Toolchain,
    find_toolchain,
    install_toolchain,
)


@click.group(cls=SuggestingGroup)
def toolchain() -> None:
    """Install and find rknn-toolkit2, which compiles for the NPU in an environment of its own."""


@toolchain.command()
@click.option(
    "--version",
    type=click.Choice(SUPPORTED_VERSIONS),
    default=DEFAULT_VERSION,
    show_default=True,
    help="Of rknn-toolkit2; the board's runtime must not be older.",
)
@click.option(
    "--dir", "directory", type=click.Path(path_type=Path), help="Where to; by default below ~/.local."
)
@click.option("--with-torch", is_flag=True, help="Torch for the CPU as well; our own graphs do without.")
@click.option("--base-python", help="Interpreter to build on, 3.10 to 3.12; by default this one.")
def install(version: str, directory: Path | None, with_torch: bool, base_python: str | None) -> None:
    """Download rknn-toolkit2 and what it needs, about 125 MB; nothing if it is there.

    Example: tfbert-npu toolchain install
    """
    with Steps() as say:
        found = install_toolchain(
            version, directory, with_torch=with_torch, base_python=base_python, on_progress=say
        )
    _show(found)
    if directory is not None:
        click.echo(f"to use it: export TFBERT_NPU_TOOLCHAIN={directory.absolute()}")


@toolchain.command()
@click.option("--python", help="Interpreter or environment to look at.")
@click.option("--version", type=click.Choice(SUPPORTED_VERSIONS), help="Look for this version.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def status(python: str | None, version: str | None, as_json: bool) -> None:
    """Say which toolchain would be used; exit code 1 if there is none.

    Example: tfbert-npu toolchain status
    """
    found = find_toolchain(python, version)
    if as_json:
        click.echo(json.dumps({**dataclasses.asdict(found), "python": str(found.python)}))
    else:
        _show(found)


def _show(found: Toolchain) -> None:
    torch = f"torch {found.torch}" if found.torch else "stand-ins for torch and OpenCV"
    click.echo(
        f"rknn-toolkit2 {found.version} on Python {found.python_version} ({found.machine}), "
        f"{torch}: {found.python}"
    )
