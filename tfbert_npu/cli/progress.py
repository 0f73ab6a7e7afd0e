"""Progress bars, on standard error and only where somebody watches."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import click


@contextmanager
def byte_progress(what: str, total: int | None, shown: bool | None) -> Iterator[Callable[[int], None]]:
    """A bar over bytes read.

    Args:
        what: What is going on.
        total: Number of bytes, if known.
        shown: Whether to show the bar; None shows it on a terminal only.

    Yields:
        A function that is told of every further number of bytes.
    """
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    bar = Progress(
        TextColumn(what),
        BarColumn(),
        DownloadColumn(),
        TimeRemainingColumn(),
        console=console,
        disable=not (console.is_terminal if shown is None else shown),
    )
    with bar:
        task = bar.add_task(what, total=total)
        yield lambda count: bar.advance(task, count)


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
