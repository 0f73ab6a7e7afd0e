"""What a training is asked to do."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

Precision = Literal["float32", "mixed_bfloat16"]
Strategy = Literal["none", "mirrored", "multi_worker"]


@dataclass(frozen=True)
class TrainOptions:
    """How a head is trained.

    Attributes:
        epochs: Passes over the data.
        learning_rate: Its peak; see `schedule.LinearWarmup`.
        warmup: Part of all steps in which the rate rises, in [0, 1].
        weight_decay: Of AdamW; not for biases and LayerNorm.
        layer_decay: Factor of the learning rate from each layer to the one below; 1 is the same for all.
        clip_norm: Largest norm of all gradients together; None does not clip.
        accumulate: Batches whose gradients are averaged for one step of the optimizer.
        patience: Stop after so many epochs without a better result; None never stops early.
        save_every: Save the training's state after so many batches, besides after every epoch; 0 does not.
        precision: `"mixed_bfloat16"` computes in bfloat16 and keeps weights in float32.
        jit_compile: Compile the step with XLA.
        tensorboard: Write event files for TensorBoard.
        dimensions: similarity: lengths to which a vector may be cut (Matryoshka); empty: none.
        freeze: Parts that are not trained: `embeddings`, `layer_0` and so on, `pooler`, `encoder`.
    """

    epochs: int = 3
    learning_rate: float = 5e-5
    warmup: float = 0.1
    weight_decay: float = 0.01
    layer_decay: float = 1.0
    clip_norm: float | None = 1.0
    accumulate: int = 1
    patience: int | None = None
    save_every: int = 0
    precision: Precision = "float32"
    jit_compile: bool = False
    tensorboard: bool = False
    dimensions: tuple[int, ...] = ()
    freeze: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.precision not in get_args(Precision):
            raise ValueError(f"precision must be one of {get_args(Precision)}, got {self.precision!r}")
        for name, least in (("epochs", 1), ("accumulate", 1), ("save_every", 0)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} must be at least {least}, got {getattr(self, name)}")
        if not 0 <= self.warmup <= 1:
            raise ValueError(f"warmup must be in [0, 1], got {self.warmup}")
        if not self.learning_rate > 0 or self.weight_decay < 0:
            raise ValueError("learning_rate must be above 0 and weight_decay not below")
        if self.clip_norm is not None and not self.clip_norm > 0:
            raise ValueError(f"clip_norm must be above 0 or None, got {self.clip_norm}")
        if any(size < 1 for size in self.dimensions) or len(set(self.dimensions)) < len(self.dimensions):
            raise ValueError(f"dimensions must be different lengths of at least 1, got {self.dimensions}")
        if self.patience is not None and self.patience < 1:
            raise ValueError(f"patience must be at least 1 or None, got {self.patience}")
