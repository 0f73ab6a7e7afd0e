"""`BertEncoder.from_pretrained`, and `save_pretrained` to Hugging Face directories."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from safetensors.numpy import save_file

from tfbert_npu._failed_writes import make_directory
from tfbert_npu._files import replacing
from tfbert_npu.checkpoints.names import Row, encoder_rows, pooler_rows
from tfbert_npu.checkpoints.reading import read_pretrained
from tfbert_npu.checkpoints.safetensors_files import SINGLE
from tfbert_npu.checkpoints.state import State, check_state, has_mlm_head, has_pooler, warn_left_aside
from tfbert_npu.checkpoints.variables import assign, extract, rows_of
from tfbert_npu.config import BertConfig
from tfbert_npu.errors import CheckpointError


def load_encoder(
    cls: type,
    dir_or_repo: str | os.PathLike[str],
    hub_options: Mapping[str, Any],
    *,
    add_pooler: bool | None,
    mlm: bool | None,
    **kwargs: Any,
) -> Any:
    """Build a `BertEncoder` (`cls`) from a checkpoint; see `BertEncoder.from_pretrained`."""
    checkpoint, origin = read_pretrained(dir_or_repo, **hub_options)
    return build_encoder(
        cls, checkpoint.config, checkpoint.state, origin, add_pooler=add_pooler, mlm=mlm, **kwargs
    )


def build_encoder(
    cls: type,
    config: BertConfig,
    state: State,
    origin: Path,
    *,
    add_pooler: bool | None = None,
    mlm: bool | None = None,
    **kwargs: Any,
) -> Any:
    """Build a `BertEncoder` (`cls`) from a state, with the pooler and the MLM head that the state holds.

    Args:
        cls: `BertEncoder`.
        config: Its architecture.
        state: Its tensors; those of task heads are left aside.
        origin: Where the state comes from, for messages.
        add_pooler: Whether to load the pooler; by default if the state holds one.
        mlm: Whether to load the masked language model head; by default if the state holds one.
        **kwargs: Arguments of the layer.

    Raises:
        CheckpointError: A tensor is missing, unknown or of another shape; the message lists them all.
    """
    try:
        found_pooler = has_pooler(state, config)
        if add_pooler is None:
            add_pooler = found_pooler
            if not found_pooler and config.model_type == "bert":
                warnings.warn(
                    f"{origin} holds no pooler, so pooled_output is the first token's hidden state",
                    stacklevel=4,
                )
        if mlm is None:
            mlm = has_mlm_head(state)
        encoder = cls(config, add_pooler=add_pooler, mlm=mlm, **kwargs)
        left_aside = check_state(state, rows_of(encoder), config)
    except CheckpointError as error:
        raise error.within(origin) from error
    warn_left_aside(origin, left_aside)
    encoder.build()
    assign(encoder, rows_of(encoder), state)
    return encoder


def save_encoder(encoder: Any, directory: str | os.PathLike[str]) -> None:
    """Write a `BertEncoder` as a Hugging Face directory; see `BertEncoder.save_pretrained`."""
    encoder.build()
    config = encoder.config
    rows = rows_of(encoder)
    # transformers reads a head only from a checkpoint whose encoder has its prefix.
    headed = encoder.mlm_head is not None
    architecture = None
    if headed:
        architecture = "DistilBertForMaskedLM" if config.model_type == "distilbert" else "BertForMaskedLM"
    write_directory(
        directory, saved_names(rows, extract(encoder, rows), config, headed), config, architecture
    )


def write_directory(
    directory: str | os.PathLike[str], tensors: State, config: BertConfig, architecture: str | None
) -> None:
    """Write `model.safetensors` and `config.json`, each of them whole or not at all."""
    path = Path(directory)
    make_directory(path)
    # The weights come first: a directory with a configuration is one with its weights.
    with replacing(path / SINGLE) as temporary:
        save_file(tensors, temporary, metadata={"format": "pt"})
    with replacing(path / "config.json") as temporary:
        config.to_json(temporary, architecture)


def saved_names(rows: Iterable[Row], state: State, config: BertConfig, headed: bool) -> State:
    """A state under transformers' names; `headed`: the encoder's have its prefix, as they do below a head."""
    is_distilbert = config.model_type == "distilbert"
    encoder_names = {row.name for row in (*encoder_rows(config), *pooler_rows(config))}
    tensors = {}
    for row in rows:
        name = (row.distilbert or row.name) if is_distilbert else row.name
        if headed and row.name in encoder_names:
            name = f"{'distilbert' if is_distilbert else 'bert'}.{name}"
        tensors[name] = state[row.name]
    return tensors
