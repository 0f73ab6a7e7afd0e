"""The learning rate of a fine-tuning: linear warm-up, then linear decay to zero."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops


@keras.saving.register_keras_serializable(package="tfbert_npu")
class LinearWarmup(keras.optimizers.schedules.LearningRateSchedule):
    """Rises linearly to `peak` over the first steps, falls linearly to 0 at the last (Devlin et al. 2018).

    Args:
        peak: Highest learning rate.
        warmup_steps: Steps until it is reached; the first step is at `peak / warmup_steps`.
        total_steps: Steps of the whole training; after them the rate is 0.

    Raises:
        ValueError: More warm-up steps than steps, or no steps at all.
    """

    def __init__(self, peak: float, warmup_steps: int, total_steps: int) -> None:
        if total_steps < 1 or not 0 <= warmup_steps <= total_steps:
            raise ValueError(f"a training of {total_steps} steps cannot have {warmup_steps} of warm-up")
        self.peak = peak
        self.warmup_steps = warmup_steps
        self.total_steps = total_steps

    def __call__(self, step: Any) -> Any:
        """The rate of step `step`, counted from 0, as a float32 scalar."""
        step = ops.cast(step, "float32")
        rising = (step + 1.0) / max(1, self.warmup_steps)
        falling = (self.total_steps - step) / max(1, self.total_steps - self.warmup_steps)
        return self.peak * ops.clip(ops.minimum(rising, falling), 0.0, 1.0)

    def get_config(self) -> dict[str, Any]:
        """What `from_config` rebuilds the schedule from."""
        return {"peak": self.peak, "warmup_steps": self.warmup_steps, "total_steps": self.total_steps}
