"""`BertEncoder.from_pretrained` and `save_pretrained`: Hugging Face directories."""

from __future__ import annotations

import os
import warnings
from pathlib import Path
from typing import Any

from safetensors.numpy import save_file

from tfbert_npu.config import BertConfig
from tfbert_npu.errors import CheckpointError
from tfbert_npu.files import replacing
from tfbert_npu.weights.names import Row
from tfbert_npu.weights.safetensors_files import INDEX, SINGLE, read_tensors
from tfbert_npu.weights.state import check_state, has_mlm_head, has_pooler, to_state
from tfbert_npu.weights.variables import assign, extract, rows_of

WANTED_FILES = ("config.json", "*.safetensors", INDEX)


def load_encoder(
    cls: type, directory: Path, *, add_pooler: bool | None, mlm: bool | None, **kwargs: Any
) -> Any:
    """Build a `BertEncoder` (`cls`) from a directory; see `BertEncoder.from_pretrained`."""
    config = BertConfig.from_json(directory / "config.json", source="huggingface")
    try:
        state = to_state(read_tensors(directory), config)
        found_pooler = has_pooler(state, config)
        if add_pooler is None:
            add_pooler = found_pooler
            if not found_pooler and config.model_type == "bert":
                warnings.warn(
                    f"{directory} holds no pooler, so pooled_output is the first token's hidden state",
                    stacklevel=3,
                )
        if mlm is None:
            mlm = has_mlm_head(state)
        encoder = cls(config, add_pooler=add_pooler, mlm=mlm, **kwargs)
        check_state(state, rows_of(encoder), config)
    except CheckpointError as error:
        raise CheckpointError(f"{directory}: {error}") from error
    encoder.build()
    assign(encoder, rows_of(encoder), state)
    return encoder


def save_encoder(encoder: Any, directory: str | os.PathLike[str]) -> None:
    """Write a `BertEncoder` as a Hugging Face directory; see `BertEncoder.save_pretrained`."""
    encoder.build()
    config = encoder.config
    rows = rows_of(encoder)
    state = extract(encoder, rows)
    # transformers reads a head only from a checkpoint whose encoder bears its prefix.
    headed = encoder.mlm_head is not None
    is_distilbert = config.model_type == "distilbert"
    tensors = {_saved_name(row, headed, is_distilbert): state[row.name] for row in rows}
    architecture = None
    if headed:
        architecture = "DistilBertForMaskedLM" if is_distilbert else "BertForMaskedLM"
    path = Path(directory)
    path.mkdir(parents=True, exist_ok=True)
    # Each file is there whole or not at all, and the weights come first: a directory with a configuration
    # is one with its weights.
    with replacing(path / SINGLE) as temporary:
        save_file(tensors, temporary, metadata={"format": "pt"})
    with replacing(path / "config.json") as temporary:
        config.to_json(temporary, architecture)


def _saved_name(row: Row, headed: bool, is_distilbert: bool) -> str:
    name = (row.distilbert or row.name) if is_distilbert else row.name
    if not headed or row.attribute.startswith("mlm_head."):
        return name
    return f"{'distilbert' if is_distilbert else 'bert'}.{name}"
