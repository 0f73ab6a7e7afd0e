"""The learning curves of a training as a picture."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path

from tfbert_npu._files import replacing
from tfbert_npu.errors import require

LOSSES = "losses.csv"
PICTURE = "learning_curves.png"


def draw_learning_curves(
    directory: Path, history: Sequence[Mapping[str, float]], monitor: str | None, kept: int
) -> Path:
    """Draw the losses and, with its 95 % interval, the result that chose the epoch; needs matplotlib.

    Args:
        directory: Holds `losses.csv`; gets `learning_curves.png`.
        history: The logs of each epoch.
        monitor: Name of the result in the logs, such as `"dev_accuracy"`; None: there is none.
        kept: The epoch of which the model is kept.

    Returns:
        The picture.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    require("matplotlib", "train")
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=(11 if monitor else 6, 4), layout="constrained")
    axes = figure.subplots(1, 2 if monitor else 1, squeeze=False)[0]
    epochs = [logs["epoch"] for logs in history]
    with (directory / LOSSES).open(encoding="utf-8", newline="") as file:
        losses = [(float(row["epoch"]), float(row["loss"])) for row in csv.DictReader(file)]
    axes[0].plot(*zip(*losses, strict=True), color="tab:blue", alpha=0.6, label="training")
    if all("dev_loss" in logs for logs in history):
        axes[0].plot(
            epochs, [logs["dev_loss"] for logs in history], "o-", color="tab:orange", label="held out"
        )
    axes[0].set(ylabel="loss", title="loss")
    if monitor:
        axes[1].plot(epochs, [logs[monitor] for logs in history], "o-", color="tab:orange", label="held out")
        ends = [[logs.get(f"{monitor}_{end}") for logs in history] for end in ("low", "high")]
        if all(value is not None for values in ends for value in values):
            axes[1].fill_between(epochs, *ends, color="tab:orange", alpha=0.15, label="its 95 % interval")
        axes[1].set(ylabel=monitor, title="the result that chooses the epoch")
    for axis in axes:
        axis.axvline(kept, color="tab:gray", linestyle="--", label=f"kept: epoch {kept}")
        axis.set_xlabel("epoch")
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
        axis.grid(visible=True, alpha=0.3)
        axis.legend(fontsize="small")
    with replacing(directory / PICTURE) as temporary:
        figure.savefig(temporary, format="png")
    return directory / PICTURE
