"""What a training leaves besides the model: its results, its picture, and how the epoch was chosen."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path

from tfbert_npu._files import replacing
from tfbert_npu.errors import MissingExtraError
from tfbert_npu.train.curves import LOSSES, draw_learning_curves


@dataclass(frozen=True)
class FineTuned:
    """What a training gave.

    Attributes:
        directory: Where the model is.
        history: The logs of each epoch.
        best: Those of the epoch that is kept, and the figures on the test data.
        chosen: How that epoch was chosen, and which figure is to be reported.
    """

    directory: Path
    history: list[dict[str, float]]
    best: dict[str, float]
    chosen: str = ""


def how_chosen(best: dict[str, float], epochs: int, monitor: str | None, held_out: str, tested: int) -> str:
    """One or two sentences for the user.

    Args:
        best: The logs of the epoch that is kept.
        epochs: How many epochs there were.
        monitor: The result that chose it; None: nothing was held out.
        held_out: What it was measured on.
        tested: Number of examples of the test data.
    """
    if monitor is None:
        chosen = f"epoch {best['epoch']:g}, the last one, is kept, for nothing was held out to choose by."
    else:
        chosen = f"epoch {best['epoch']:g} of {epochs} is kept, the best by {monitor} on {held_out}."
    if tested:
        return f"{chosen} Report the test figures: those {tested} examples chose nothing."
    if monitor is None:
        return chosen
    return f"{chosen} It flatters, for it chose; --test or --test-fraction give a figure to report."


def finish(
    out: Path, history: list[dict[str, float]], best: dict[str, float], monitor: str | None, chosen: str
) -> FineTuned:
    """Write `results.json` and, where matplotlib is installed, `learning_curves.png`."""
    with replacing(out / "results.json") as temporary:
        temporary.write_text(json.dumps(best, indent=1) + "\n", encoding="utf-8")
    if (out / LOSSES).is_file():  # one worker of several writes it
        try:
            draw_learning_curves(out, history, monitor, int(best["epoch"]))
        except MissingExtraError as error:
            print(f"no picture of the learning curves: {error}", file=sys.stderr)  # noqa: T201
    return FineTuned(out, history, best, chosen)
