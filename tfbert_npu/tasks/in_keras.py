"""A checkpoint as a Keras model that tasks call: the one place of tasks that needs TensorFlow."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from tfbert_npu.checkpoints.checkpoint import Checkpoint
from tfbert_npu.checkpoints.head_files import build_head
from tfbert_npu.checkpoints.pretrained import build_encoder
from tfbert_npu.config import BertConfig
from tfbert_npu.heads import ENCODER, HeadSpec
from tfbert_npu.models.encoder import BertEncoder
from tfbert_npu.models.heads import class_of
from tfbert_npu.tasks.running import Arrays, as_function


def keras_function(
    found: Checkpoint, head: HeadSpec, folder: Path
) -> tuple[Callable[[Arrays], Any], BertConfig]:
    """The function of a checkpoint with a head on it, and its configuration.

    Args:
        found: What a reader gave.
        head: Its head.
        folder: Where it comes from, for messages.
    """
    if head == ENCODER:
        encoder = build_encoder(BertEncoder, found.config, found.state, folder, mlm=False)
        return as_function(encoder), encoder.config
    model = build_head(class_of(head), found.config, found.state, folder)
    return model.predict_on_batch, model.config


def reference(found: Checkpoint, head: HeadSpec, folder: Path) -> Callable[[Arrays], Arrays]:
    """`keras_function` with its outputs by name, built when it is first asked."""

    @functools.cache
    def built() -> Callable[[Arrays], Any]:
        return keras_function(found, head, folder)[0]

    def call(inputs: Arrays) -> Arrays:
        # Rows of the batch are choices, each of a question of its own.
        given = {name: value[:, None] for name, value in inputs.items()} if head.choices else dict(inputs)
        outputs = built()(given)
        return outputs if isinstance(outputs, Mapping) else {head.outputs[0].name: outputs}

    return call
