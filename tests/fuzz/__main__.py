"""Feed readers of foreign bytes with damaged files and print what escapes."""

from __future__ import annotations

import logging
import tempfile
from pathlib import Path

import click
from rich.console import Console
from rich.table import Table

from tests.fuzz.driving import drive
from tests.fuzz.readers import readers


@click.command(help=__doc__)
@click.argument("names", nargs=-1, metavar="[READER]...")
@click.option("--inputs", default=10_000, show_default=True, help="For each reader.")
@click.option("--seed", default=0, show_default=True, help="The same inputs for the same number.")
def main(names: tuple[str, ...], inputs: int, seed: int) -> None:
    """Run; exit code 1 if anything was found."""
    logging.disable(logging.WARNING)
    table = Table("reader", "inputs", "read", "refused", "a second", "findings")
    found = False
    with tempfile.TemporaryDirectory() as scratch:
        every = readers(Path(scratch, "seeds"))
        for name in names or every:
            outcome = drive(every[name], Path(scratch, name), inputs, seed)
            rate = outcome.inputs / max(outcome.seconds, 1e-9)
            cells = (outcome.inputs, outcome.read, outcome.refused, round(rate), len(outcome.findings))
            table.add_row(name, *map(str, cells))
            for what, content in outcome.findings.items():
                found = True
                click.echo(f"{name}: {what!r}\n  {content[:300]!r}")
    Console().print(table)
    raise SystemExit(found)


if __name__ == "__main__":
    main()
