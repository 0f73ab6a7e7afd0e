"""What happens beside the steps: best checkpoint, state for a resume, a stop at NaN, losses."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import keras
import numpy as np

from tfbert_npu._failed_writes import make_directory
from tfbert_npu._files import replacing
from tfbert_npu.errors import TfbertNpuError
from tfbert_npu.train.batches import Batch, Batches
from tfbert_npu.train.curves import LOSSES
from tfbert_npu.train.state import Origin, save_state


class DivergedError(TfbertNpuError, ArithmeticError):
    """The loss became NaN or infinite; the message says at which step and where the batch was saved."""


@dataclass
class Position:
    """Where a training stands; saved with its state.

    `step` counts the batches done of `epoch`. `best` is the best result so far, `best_loss` that epoch's loss
    on the held-out data, `waited` the epochs since, `history` the logs of the epochs done, `losses` the mean
    training loss of each stretch of batches with its end in epochs.
    """

    epoch: int = 0
    step: int = 0
    best: float | None = None
    best_loss: float | None = None
    waited: int = 0
    history: list[dict[str, float]] = field(default_factory=list)
    losses: list[tuple[float, float]] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON types."""
        return asdict(self)


class Advance(keras.callbacks.Callback):
    """Keeps the position; the first of the callbacks."""

    def __init__(self, position: Position) -> None:
        super().__init__()
        self.position = position

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """A new epoch starts at its first batch, the one that is gone on with where it stopped."""
        if epoch != self.position.epoch:
            self.position.epoch, self.position.step = epoch, 0

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """Count the batch."""
        self.position.step += 1


class NoteLosses(keras.callbacks.Callback):
    """Notes the mean loss of each twentieth of an epoch, for the learning curve."""

    def __init__(self, position: Position, steps: int) -> None:
        super().__init__()
        self.position, self.steps, self.every = position, steps, math.ceil(steps / 20)

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Keras begins its mean again."""
        self._batches, self._total = 0, 0.0

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """Note the loss at the end of a stretch."""
        position = self.position
        if position.step % self.every and position.step != self.steps:
            return
        # Keras tells the mean over the batches since it began.
        total = float((logs or {}).get("loss", 0.0)) * (batch + 1)
        mean = (total - self._total) / (batch + 1 - self._batches)
        position.losses.append((position.epoch + position.step / self.steps, mean))
        self._batches, self._total = batch + 1, total


class StopOnNaN(keras.callbacks.Callback):
    """Stops at the first loss that is no number, and saves the batch that gave it."""

    def __init__(self, position: Position, batches: Batches, directory: Path) -> None:
        super().__init__()
        self.position, self.batches, self.directory = position, batches, directory

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """Look at the loss.

        Raises:
            DivergedError: It is NaN or infinite.
        """
        if math.isfinite(float((logs or {}).get("loss", 0.0))):
            return
        epoch, step = self.position.epoch, self.position.step
        path = self.directory / "diverged_batch.npz"
        make_directory(self.directory)
        with replacing(path) as temporary, temporary.open("wb") as file:
            culprit = next(self.batches.epoch(epoch, step - 1))
            np.savez_compressed(file, allow_pickle=False, **_named_arrays(culprit))
        raise DivergedError(
            f"the loss is not finite at step {step} of epoch {epoch + 1}",
            f"its batch is in {path}: look at its labels, or train with a lower learning rate",
        )


def _named_arrays(batch: Batch) -> dict[str, np.ndarray]:
    inputs, labels, weights = batch
    arrays = dict(inputs)
    arrays.update(labels if isinstance(labels, dict) else {"labels": labels})
    return arrays if weights is None else {**arrays, "sample_weights": weights}


class KeepBest(keras.callbacks.Callback):
    """Evaluates after every epoch, saves the best model and stops when it no longer gets better.

    Args:
        position: Holds the best result so far.
        evaluate: Gives the model's results by name; they join the epoch's logs as `dev_...`.
        save: Saves the model.
        monitor: The result that counts; None: the last epoch's model is the best one. Between equal results
            the lower `loss` decides, where `evaluate` gives one: a few held-out rows are soon all right.
        higher: Whether more of it is better.
        patience: Epochs without a better result after which to stop; None: never.
    """

    def __init__(
        self,
        position: Position,
        evaluate: Callable[[], dict[str, float]] | None,
        save: Callable[[], None],
        monitor: str | None,
        higher: bool = True,
        patience: int | None = None,
    ) -> None:
        super().__init__()
        self.position, self.evaluate, self.save = position, evaluate, save
        self.monitor, self.higher, self.patience = monitor, higher, patience

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Evaluate and, if it is the best so far, save."""
        logs = {} if logs is None else logs
        if self.evaluate is not None:
            logs.update({f"dev_{name}": float(value) for name, value in self.evaluate().items()})
        result = logs.get(f"dev_{self.monitor}") if self.monitor is not None else None
        loss = logs.get("dev_loss")
        if result is None or self._is_better(result, loss):
            self.position.best, self.position.best_loss, self.position.waited = result, loss, 0
            self.save()
        else:
            self.position.waited += 1
            if self.patience is not None and self.position.waited >= self.patience:
                self.model.stop_training = True

    def _is_better(self, result: float, loss: float | None) -> bool:
        best, least = self.position.best, self.position.best_loss
        if best is None or math.isnan(best):
            return True
        if result == best:
            return loss is not None and least is not None and loss < least
        return result > best if self.higher else result < best


class SaveState(keras.callbacks.Callback):
    """Saves the whole state after every epoch and every few batches; the last of the callbacks.

    `history.json` and `losses.csv` beside the state hold the logs of the epochs done.
    """

    def __init__(
        self, position: Position, path: Path, every: int, steps: int, origin: Origin, is_chief: bool = True
    ) -> None:
        super().__init__()
        self.origin = origin
        self.position, self.path, self.is_chief = position, path, is_chief
        self.every, self.steps = every, steps

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """Save after each `every` batches; an epoch's last is left to its end, which evaluates it first."""
        if self.every and self.position.step % self.every == 0 and self.position.step < self.steps:
            self._save()

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Note the epoch's logs, and save as before the next one's first batch."""
        numbers = {name: float(value) for name, value in (logs or {}).items()}
        self.position.history.append({"epoch": epoch + 1, **numbers})
        self.position.epoch, self.position.step = epoch + 1, 0
        if self.is_chief:
            with replacing(self.path.parent / "history.json") as temporary:
                temporary.write_text(json.dumps(self.position.history, indent=1) + "\n", encoding="utf-8")
            with (
                replacing(self.path.parent / LOSSES) as temporary,
                temporary.open("w", encoding="utf-8", newline="") as file,
            ):
                csv.writer(file).writerows([("epoch", "loss"), *self.position.losses])
        self._save()

    def _save(self) -> None:
        if self.is_chief:
            save_state(self.path, self.model, self.position.to_dict(), self.origin)
