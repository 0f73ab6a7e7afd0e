"""Readers by form, and whole models with the head that their files name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import tfbert_npu
from tfbert_npu.config import BertConfig
from tfbert_npu.errors import CheckpointError
from tfbert_npu.hub.layout import Form
from tfbert_npu.weights.checkpoint import Checkpoint
from tfbert_npu.weights.google import read_google
from tfbert_npu.weights.pytorch import read_pickles
from tfbert_npu.weights.state import to_state


def read_checkpoint(folder: Path, form: Form) -> Checkpoint:
    """Read a checkpoint that is not safetensors.

    Raises:
        CheckpointError: A file is damaged, or PyTorch is needed and not installed.
    """
    if form == "google":
        return read_google(folder)
    config = BertConfig.from_json(folder / "config.json", source="huggingface")
    try:
        return Checkpoint(config, to_state(read_pickles(folder), config))
    except CheckpointError as error:
        raise CheckpointError(f"{folder}: {error}") from error


def pull_model(folder: Path, form: Form) -> Any:
    """The model whose class `config.json` names in `architectures`, DistilBERT's under BERT's name.

    Raises:
        CheckpointError: The file names no class, or one that does not exist here.
    """
    if form != "huggingface":
        raise CheckpointError(
            f"{folder} does not say which head belongs to its weights; call from_pretrained of the class you "
            "want, or pull its encoder"
        )
    values = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    named = values.get("architectures") if isinstance(values, dict) else None
    architecture = str(named[0]) if isinstance(named, list) and named else ""
    name = architecture.removeprefix("Distil").replace("BERT", "Bert")
    known = [
        name for name in tfbert_npu.__all__ if name.startswith("Bert") and ("For" in name or "LM" in name)
    ]
    if name not in known:
        raise CheckpointError(
            f"{folder / 'config.json'} names the architecture {architecture or None!r}; known are "
            f"{', '.join(known) or 'none yet'}, so call from_pretrained of the class you want"
        )
    return getattr(tfbert_npu, name).from_pretrained(folder)
