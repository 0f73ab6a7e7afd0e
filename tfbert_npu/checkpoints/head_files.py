"""`from_pretrained` and `save_pretrained` of the task heads, over the same files as the encoder's."""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tfbert_npu.checkpoints.names import encoder_rows, head_rows, head_shapes
from tfbert_npu.checkpoints.pretrained import saved_names, write_directory
from tfbert_npu.checkpoints.reading import read_pretrained
from tfbert_npu.checkpoints.state import State, check_state, warn_left_aside
from tfbert_npu.checkpoints.variables import assign, extract, rows_of
from tfbert_npu.config import BertConfig, ProblemType
from tfbert_npu.errors import CheckpointError


def load_head(
    cls: type,
    dir_or_repo: str | os.PathLike[str],
    hub_options: Mapping[str, Any],
    num_labels: int | None,
    labels: Sequence[str] | None,
    problem_type: ProblemType | None,
    **kwargs: Any,
) -> Any:
    """Build a task head (`cls`) from a checkpoint; see `BertHead.from_pretrained`."""
    checkpoint, origin = read_pretrained(dir_or_repo, **hub_options)
    return build_head(
        cls, checkpoint.config, checkpoint.state, origin, num_labels, labels, problem_type, **kwargs
    )


def build_head(
    cls: type,
    config: BertConfig,
    state: State,
    origin: Path,
    num_labels: int | None = None,
    labels: Sequence[str] | None = None,
    problem_type: ProblemType | None = None,
    **kwargs: Any,
) -> Any:
    """Build a task head from a state, and say once which of its weights the state does not hold.

    Args:
        cls: The head's class.
        config: The checkpoint's configuration, labels included.
        state: The checkpoint's tensors.
        origin: Where the state comes from, for messages.
        num_labels: Number of labels that is asked for; by default the checkpoint's.
        labels: Names of the labels that are asked for.
        problem_type: See `BertHead`.
        **kwargs: Arguments of the class.

    Raises:
        CheckpointError: A tensor of the encoder is missing, or one is unknown or of another shape.
    """
    model = cls(config, num_labels=num_labels, labels=labels, problem_type=problem_type, **kwargs)
    own_rows = [row for layer in model.parts for row in head_rows(layer)]
    sizes = head_shapes(model.parts, config)
    if config.id2label != model.config.id2label:
        # A classifier that was trained for other labels says nothing about these.
        asked_anew = {row.name for row in own_rows if model.config.num_labels == sizes[row.name][0]}
        same_size = all(state[name].shape == sizes[name] for name in asked_anew & state.keys())
        if not same_size or _are_names(config.id2label):
            state = {name: tensor for name, tensor in state.items() if name not in asked_anew}
    encoder_names = {row.name for row in encoder_rows(config)}
    rows = rows_of(model.encoder)
    absent = [row for row in (*rows, *own_rows) if row.name not in state and row.name not in encoder_names]
    new = {row.name for row in absent}
    rows = [row for row in rows if row.name not in new]
    own_rows = [row for row in own_rows if row.name not in new]
    try:
        left_aside = check_state(state, (*rows, *own_rows), config, sizes)
    except CheckpointError as error:
        raise error.within(origin) from error
    warn_left_aside(origin, left_aside)
    if new:
        warnings.warn(
            f"{origin} does not hold {', '.join(sorted(new))}; these start from new weights, so train the "
            f"{cls.__name__} before you use it",
            stacklevel=4,
        )
    model.build()
    assign(model.encoder, rows, state)
    assign(model, own_rows, state)
    return model


def _are_names(labels: Sequence[str] | None) -> bool:
    # transformers numbers labels that nobody has named.
    return labels is not None and any(label != f"LABEL_{index}" for index, label in enumerate(labels))


def save_head(model: Any, directory: str | os.PathLike[str]) -> None:
    """Write a task head as a Hugging Face directory; see `BertHead.save_pretrained`."""
    model.build()
    config = model.config
    rows = rows_of(model.encoder)
    own_rows = [row for part in model.parts for row in head_rows(part)]
    state = {**extract(model.encoder, rows), **extract(model, own_rows)}
    write_directory(
        directory, saved_names((*rows, *own_rows), state, config, True), config, model.architecture
    )
