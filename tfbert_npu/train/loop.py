"""The loop: a head, its batches and its options joined by `compile` and `fit`, resumed where it stopped."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import asdict
from itertools import count
from pathlib import Path
from typing import Any

import keras

from tfbert_npu._failed_writes import make_directory
from tfbert_npu.errors import require
from tfbert_npu.train.batches import Batches
from tfbert_npu.train.callbacks import Advance, KeepBest, NoteLosses, Position, SaveState, StopOnNaN
from tfbert_npu.train.features import IGNORED
from tfbert_npu.train.optimizer import BertAdamW, layer_factors
from tfbert_npu.train.options import TrainOptions
from tfbert_npu.train.out_directory import locked
from tfbert_npu.train.progress import ShowProgress
from tfbert_npu.train.schedule import LinearWarmup
from tfbert_npu.train.state import FILE, Origin, load_state, save_state, state_variables


def compile_for(model: Any, options: TrainOptions, steps_per_epoch: int) -> None:
    """Compile a head with the optimizer, schedule and loss of a fine-tuning.

    Args:
        model: A `BertHead`.
        options: See `TrainOptions`.
        steps_per_epoch: Batches of an epoch, for the schedule.
    """
    updates = max(1, steps_per_epoch * options.epochs // options.accumulate)
    factors = layer_factors(model, options.layer_decay) if options.layer_decay != 1 else None
    model.build()
    optimizer = BertAdamW(
        learning_rate=LinearWarmup(options.learning_rate, round(options.warmup * updates), updates),
        weight_decay=options.weight_decay,
        global_clipnorm=options.clip_norm,
        gradient_accumulation_steps=options.accumulate if options.accumulate > 1 else None,
        epsilon=1e-6,  # of google-research/bert's optimizer
        factors=factors,
    )
    model.compile(optimizer, jit_compile=options.jit_compile)


def train(
    model: Any,
    batches: Batches,
    options: TrainOptions,
    out: Path,
    *,
    evaluate: Callable[[], dict[str, float]] | None = None,
    save: Callable[[], None] | None = None,
    monitor: str | None = None,
    higher: bool = True,
    progress: bool = True,
    transform: Callable[..., Any] | None = None,
    origin: Origin | None = None,
) -> list[dict[str, float]]:
    """Train a head, from its state in `out` if there is one.

    The state is saved after every epoch and `options.save_every` batches; a training that was killed goes on
    from the last one and, on the same machine with deterministic operations, ends with the same weights.
    When the training is done the state file is removed.

    Args:
        model: A `BertHead`, made under the strategy's scope if there is one.
        batches: Its data.
        options: See `TrainOptions`.
        out: Directory for the state, `history.json`, `losses.csv`, event files and a batch that diverged.
        evaluate: Gives results on held-out data after every epoch.
        save: Saves the best model; by default `model.save_pretrained(out)`.
        monitor: The result that says which is the best; None: the last.
        higher: Whether more of it is better.
        progress: Show progress on stderr.
        transform: Applied in the graph to each batch (inputs, labels, sample weights) with its number,
            int64 [2] (epoch, batch), as first argument; for masking.
        origin: What the training is made of besides `batches` and `options`: task, starting weights and the
            like. A state is gone on with only if it has the same origin.

    Returns:
        The logs of each epoch.

    Raises:
        ValueError: A label is outside the range of the model's classes.
        DivergedError: The loss became NaN or infinite.
        CheckpointError: The state in `out` is damaged or belongs to another training.
        OutDirectoryError: Another training writes to `out`.
    """
    check_labels(batches, model.num_classes)
    steps = len(batches)
    if steps * options.epochs < options.accumulate:
        raise ValueError(
            f"{options.epochs} epochs of {steps} batches are less than the {options.accumulate} batches of "
            "one update (accumulate); choose a smaller number, or more epochs"
        )
    strategy = model.distribute_strategy
    is_chief = strategy.cluster_resolver is None or strategy.cluster_resolver.task_id in (None, 0)
    with locked(out) if is_chief else nullcontext():
        return _train(
            model, batches, options, out, evaluate, save, monitor, higher, progress, transform,
            origin_of(model, batches, options, origin), is_chief,
        )  # fmt: skip


def origin_of(model: Any, batches: Batches, options: TrainOptions, more: Origin | None = None) -> Origin:
    """What a training is made of, for its state; saving more often or event files do not change it."""
    own = {**asdict(options), **asdict(batches.options)}
    for name in ("save_every", "tensorboard"):
        own.pop(name)
    labels = getattr(getattr(model, "config", None), "id2label", None)
    return {"data": batches.digest, "labels": labels and list(labels), **own, **(more or {})}


def _train(
    model: Any,
    batches: Batches,
    options: TrainOptions,
    out: Path,
    evaluate: Callable[[], dict[str, float]] | None,
    save: Callable[[], None] | None,
    monitor: str | None,
    higher: bool,
    progress: bool,
    transform: Callable[..., Any] | None,
    origin: Origin,
    is_chief: bool,
) -> list[dict[str, float]]:
    make_directory(out)
    state = out / FILE
    steps = len(batches)
    strategy = model.distribute_strategy
    context = strategy.scope() if strategy.num_replicas_in_sync > 1 else nullcontext()
    with context:
        compile_for(model, options, steps)
        state_variables(model)  # every worker makes the optimizer's: one alone would wait for the others
        position = Position()
        if state.is_file():
            position = Position(**load_state(state, model, origin))
        elif is_chief:
            # A state from the start: it ties `out` to this training, and a full disk is found now.
            save_state(state, model, position.to_dict(), origin)

    def save_best() -> None:
        # Every worker reads its variables, for reading may need all of them; one writes.
        (save or (lambda: model.save_pretrained(out)))() if is_chief else None

    callbacks: list[Any] = [Advance(position), StopOnNaN(position, batches, out)]
    callbacks.append(NoteLosses(position, steps))
    callbacks.append(KeepBest(position, evaluate, save_best, monitor, higher, options.patience))
    if options.tensorboard:
        require("tensorboard", "train")
        callbacks.append(keras.callbacks.TensorBoard(out / "tensorboard", update_freq="epoch"))
    if progress and is_chief:
        callbacks.append(ShowProgress(position, steps, options.epochs, batches.options.batch_size))
    callbacks.append(SaveState(position, state, options.save_every, steps, origin, is_chief))
    # `fit` knows one number of steps for all of its epochs, so an interrupted epoch is ended by a call of its
    # own.
    lasts = [position.epoch + 1, options.epochs] if position.step else [options.epochs]
    for last in lasts:
        stopped = options.patience is not None and position.waited >= options.patience
        if position.epoch < last and not stopped:
            model.fit(
                dataset(batches, position.epoch, position.step, transform),
                epochs=last,
                initial_epoch=position.epoch,
                steps_per_epoch=steps - position.step,
                callbacks=callbacks,
                shuffle=False,
                verbose=0,
            )
    if is_chief:
        state.unlink(missing_ok=True)
    return position.history


def check_labels(batches: Batches, classes: int | None) -> None:
    """Look at every label before the first step: TensorFlow finds one out of range at best in mid-training.

    Args:
        batches: The data.
        classes: Number of classes; None: the labels are no class indices.

    Raises:
        ValueError: A label is not in 0 to `classes - 1`; says of which row.
    """
    if classes is None:
        return
    for row, feature in enumerate(batches.features_of(0)):
        labels = feature.label if isinstance(feature.label, list) else [feature.label]
        for label in labels:
            if label != IGNORED and not (isinstance(label, int) and 0 <= label < classes):
                raise ValueError(
                    f"row {row} of the data has the label {label!r}, but the model's labels are 0 to "
                    f"{classes - 1}; fix the data, or make the model with more labels"
                )


def dataset(
    batches: Batches, epoch: int = 0, step: int = 0, transform: Callable[..., Any] | None = None
) -> Any:
    """The batches from one of them on, one epoch after the other without end, as a `tf.data.Dataset`."""
    tf = require("tensorflow", "tf")

    def numbered() -> Iterator[Any]:
        for number in count(epoch):
            first = step if number == epoch else 0
            for place, (inputs, labels, weights) in enumerate(batches.epoch(number, first), first):
                batch = (inputs, labels) if weights is None else (inputs, labels, weights)
                yield ((number, place), batch)

    def spec(array: Any) -> Any:
        # The number of rows and their length change from one batch to the next.
        return tf.TensorSpec([None] * array.ndim, tf.as_dtype(array.dtype))

    inputs, labels, weights = next(batches.epoch(0))
    sample: Any = (inputs, labels) if weights is None else (inputs, labels, weights)
    signature = (tf.TensorSpec([2], tf.int64), tf.nest.map_structure(spec, sample))
    data = tf.data.Dataset.from_generator(numbered, output_signature=signature)
    if transform is None:
        data = data.map(lambda number, batch: batch)
    else:
        data = data.map(lambda number, batch: transform(number, *batch))
    options = tf.data.Options()
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.DATA
    # Nothing is fetched ahead, by us or by tf.data itself: a batch takes a thousandth of a step to make, and
    # without it no other thread calls Python while the training runs.
    options.experimental_optimization.inject_prefetch = False
    return data.with_options(options)
