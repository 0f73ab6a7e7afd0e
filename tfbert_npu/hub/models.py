"""Whole models, with the head that their files name or their weights show."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

import tfbert_npu
from tfbert_npu.checkpoints.checkpoint import Checkpoint
from tfbert_npu.checkpoints.layout import Form
from tfbert_npu.checkpoints.reading import read_form
from tfbert_npu.checkpoints.state import has_mlm_head
from tfbert_npu.config import BertConfig
from tfbert_npu.errors import CheckpointError


def pull_model(folder: Path, form: Form) -> Any:
    """The model with its head: of the class in `architectures`, for TF1 of the one whose weights are there.

    Raises:
        CheckpointError: The class is not known here, or there is no head.
    """
    if form == "huggingface":
        return getattr(tfbert_npu, _named_class(folder)).from_pretrained(folder)
    checkpoint = read_form(folder, form)
    return build_model(checkpoint, folder, _named_class(folder) if form == "pytorch" else None)


def build_model(checkpoint: Checkpoint, folder: Path, name: str | None = None) -> Any:
    """A model of a checkpoint that has been read.

    Args:
        checkpoint: What a reader gave.
        folder: Where it comes from, for messages.
        name: The class; by default the one whose weights the checkpoint holds.

    Raises:
        CheckpointError: It holds the weights of no head.
    """
    from tfbert_npu.checkpoints.head_files import build_head

    config, state = checkpoint.config, checkpoint.state
    name = name or _class_of(state)
    if name is None:
        raise CheckpointError(f"{folder} holds an encoder without a head; pull it as component='encoder'")
    return build_head(getattr(tfbert_npu, name), config, state, folder)


def _class_of(state: Mapping[str, np.ndarray]) -> str | None:
    if "classifier.weight" in state:
        return "BertForSequenceClassification"
    if "qa_outputs.weight" in state:
        return "BertForQuestionAnswering"
    if has_mlm_head(state):
        return "BertForPreTraining" if "cls.seq_relationship.weight" in state else "BertForMaskedLM"
    return None


def _named_class(folder: Path) -> str:
    BertConfig.from_json(folder / "config.json", source="huggingface")  # says what is wrong with the file
    values = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    named = values.get("architectures") if isinstance(values, dict) else None
    architecture = str(named[0]) if isinstance(named, list) and named else ""
    name = architecture.removeprefix("Distil")
    known = [name for name in tfbert_npu.__all__ if name.startswith(("BertFor", "BertLM"))]
    if name not in known:
        raise CheckpointError(
            f"{folder / 'config.json'} names the architecture {architecture or None!r}; known are "
            f"{', '.join(known)}, so call from_pretrained of the class you want, or pull its encoder"
        )
    return name
