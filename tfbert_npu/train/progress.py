"""What a training shows of itself on standard error: a bar on a terminal, a row of a table for each epoch."""

from __future__ import annotations

import sys
import time
from typing import Any

import keras
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from tfbert_npu.train.callbacks import Position


class ShowProgress(keras.callbacks.Callback):
    """A bar per epoch on a terminal, and everywhere a row per epoch: results, rates, and the time left.

    Args:
        position: Where the training stands.
        steps: Batches of an epoch.
        epochs: Number of epochs.
        batch_size: Rows of a batch.
    """

    def __init__(self, position: Position, steps: int, epochs: int, batch_size: int) -> None:
        super().__init__()
        self.position, self.steps, self.epochs, self.batch_size = position, steps, epochs, batch_size
        self._console = Console(stderr=True)
        self._bar: Progress | None = None
        self._heading = True

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Start a clock, and a bar at the position."""
        self._begun = self._trained = time.monotonic()
        self._first = self.position.step
        if not sys.stderr.isatty():
            return
        self._bar = Progress(
            TextColumn("epoch {task.fields[epoch]}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[loss]}"),
            TimeRemainingColumn(),
            console=self._console,
            transient=True,  # the epoch's row takes its place
        )
        self._bar.start()
        self._task = self._bar.add_task(
            "train",
            total=self.steps,
            completed=self.position.step,
            epoch=f"{epoch + 1}/{self.epochs}",
            loss="",
        )

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """Move on."""
        self._trained = time.monotonic()
        if self._bar is not None:
            loss = f"loss {float(logs['loss']):.4f}" if logs and "loss" in logs else ""
            self._bar.update(self._task, advance=1, loss=loss)

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """End the bar and print the epoch's row; `*` marks the best epoch so far."""
        self.on_train_end()
        whole = time.monotonic() - self._begun
        rows = (self.position.step - self._first) * self.batch_size
        cells = {"epoch": f"{epoch + 1}/{self.epochs}{'*' if self.position.waited == 0 else ''}"}
        for name, value in (logs or {}).items():
            if not name.endswith(("_low", "_high")):
                cells[name.replace("_", " ")] = f"{float(value):.4f}"
        cells["learning rate"] = f"{float(self.model.optimizer.learning_rate):.1e}"
        cells["rows/s"] = f"{rows / max(self._trained - self._begun, 1e-9):.3g}"
        cells["time"] = duration(whole)
        # An epoch that was gone on with is no measure for the next ones.
        share = max(self.position.step - self._first, 1) / self.steps
        cells["left"] = duration(whole / share * (self.epochs - epoch - 1))
        table = Table(box=None, show_header=self._heading, pad_edge=False, padding=(0, 1, 0, 0))
        for name, cell in cells.items():
            table.add_column(name, width=max(8 if " " in name else 6, len(cell)), justify="right")
        table.add_row(*cells.values())
        self._heading = False
        width = max(self._console.width, sum(column.width or 0 for column in table.columns) + len(cells))
        self._console.print(table, width=width, highlight=False)

    def on_train_end(self, logs: Any = None) -> None:
        """Give the terminal back."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None


def duration(seconds: float) -> str:
    """As 12s, 3m05s or 2h10m."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole}s"
    return f"{whole // 60}m{whole % 60:02}s" if whole < 3600 else f"{whole // 3600}h{whole % 3600 // 60:02}m"
