"""Whole models, with the head that their files name or their weights show."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tfbert_npu.checkpoints.checkpoint import Checkpoint
from tfbert_npu.checkpoints.head_files import build_head
from tfbert_npu.checkpoints.layout import Form
from tfbert_npu.checkpoints.reading import named_head, read_form
from tfbert_npu.config import BertConfig
from tfbert_npu.errors import CheckpointError
from tfbert_npu.heads import ENCODER, HeadSpec, head_in, heads


def pull_model(folder: Path, form: Form) -> Any:
    """The model with its head: of the class in `architectures`, for TF1 of the one whose weights are there.

    Raises:
        CheckpointError: The class is not known here, or there is no head.
    """
    from tfbert_npu.models.heads import class_of

    if form == "huggingface":
        return class_of(_named_head(folder)).from_pretrained(folder)
    checkpoint = read_form(folder, form)
    return build_model(checkpoint, folder, _named_head(folder) if form in ("pytorch", "tensorflow") else None)


def build_model(checkpoint: Checkpoint, folder: Path, head: HeadSpec | None = None) -> Any:
    """A model of a checkpoint that has been read.

    Args:
        checkpoint: What a reader gave.
        folder: Where it comes from, for messages.
        head: Its head; by default the one whose weights the checkpoint holds.

    Raises:
        CheckpointError: It holds the weights of no head.
    """
    from tfbert_npu.models.heads import class_of

    config, state = checkpoint.config, checkpoint.state
    head = head or head_in(state)
    if head is None:
        raise CheckpointError(f"{folder} holds an encoder without a head; pull it as component='encoder'")
    return build_head(class_of(head), config, state, folder)


def _named_head(folder: Path) -> HeadSpec:
    BertConfig.from_json(folder / "config.json", source="huggingface")  # says what is wrong with the file
    head = named_head(folder / "config.json")
    if head is None:
        named = json.loads((folder / "config.json").read_text(encoding="utf-8")).get("architectures")
        architecture = named[0] if isinstance(named, list) and named else None
        known = [f"Bert{head.suffix}" for head in heads() if head != ENCODER]
        raise CheckpointError(
            f"{folder / 'config.json'} names the architecture {architecture!r}; known are "
            f"{', '.join(known)}, so call from_pretrained of the class you want, or pull its encoder"
        )
    return head
