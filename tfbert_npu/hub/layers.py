"""Keras layers from the files that `pull_from_hub` found."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tfbert_npu.checkpoints.checkpoint import Checkpoint
from tfbert_npu.checkpoints.head_files import build_head
from tfbert_npu.checkpoints.layout import Component, Form
from tfbert_npu.checkpoints.pretrained import build_encoder
from tfbert_npu.checkpoints.reading import named_head, read_form
from tfbert_npu.checkpoints.saved_model import read_saved_model
from tfbert_npu.checkpoints.tfhub import (
    CONFIG_ASSET,
    PREPROCESSOR_ASSET,
    kind_of,
    read_encoder,
    read_preprocessor,
)
from tfbert_npu.config import BertConfig
from tfbert_npu.errors import CheckpointError
from tfbert_npu.heads import ENCODER, HeadSpec, head_in, heads
from tfbert_npu.hub.trusted import TrustedSavedModel
from tfbert_npu.models.encoder import BertEncoder
from tfbert_npu.models.heads import class_of
from tfbert_npu.preprocess import BertPreprocessor, BertTokenizer, TextOptions, Vocabulary


def from_checkpoint(folder: Path, form: Form, component: Component, name: str) -> Any:
    """A component of a Hugging Face, Google or PyTorch checkpoint called `name`."""
    if component == "preprocessor":
        return BertPreprocessor.of(BertTokenizer.from_directory(folder, name))
    if component == "model":
        return _pull_model(folder, form)
    checkpoint = read_form(folder, form)
    encoder = build_encoder(BertEncoder, checkpoint.config, checkpoint.state, folder)
    _remember_vocabulary(encoder, folder / "vocab.txt", _lower_case(folder))
    return encoder


def from_saved_model(folder: Path, component: Component, trust: bool, allow_ops: Sequence[str]) -> Any:
    """A component of a SavedModel, rebuilt; with `trust` a foreign one as it is."""
    model = read_saved_model(folder)
    model.refuse_dangerous_ops(allow_ops)
    kind = kind_of(model)
    try:
        if kind == "preprocessor" and component in ("auto", "preprocessor"):
            spec = read_preprocessor(model)
            if spec.settings is not None:
                return _own_preprocessor(spec.vocabulary, spec.settings)
            return _tfhub_preprocessor(spec.vocabulary, spec.lower_case, spec.seq_length)
        if kind == "encoder":
            checkpoint = read_encoder(model)
            if component == "model":
                own = model.asset(CONFIG_ASSET) if model.child(0, CONFIG_ASSET) is not None else None
                return _build_model(checkpoint, folder, None if own is None else named_head(own))
            if component == "preprocessor":
                if model.child(0, PREPROCESSOR_ASSET) is not None:
                    spec = read_preprocessor(model)
                    return _own_preprocessor(spec.vocabulary, spec.settings or {})
                if checkpoint.vocabulary is None or checkpoint.lower_case is None:
                    raise CheckpointError(f"{folder} has no vocab_file and do_lower_case")
                return _tfhub_preprocessor(checkpoint.vocabulary, checkpoint.lower_case, 128)
            encoder = build_encoder(BertEncoder, checkpoint.config, checkpoint.state, folder)
            _remember_vocabulary(encoder, checkpoint.vocabulary, checkpoint.lower_case)
            return encoder
        if kind == "preprocessor":
            raise ValueError(f"{folder} is a TF-Hub preprocessor; it has no {component}")
    except CheckpointError:
        if not trust:
            raise
    if not trust:
        raise CheckpointError(
            f"{folder} is a SavedModel that is neither a BERT encoder nor its preprocessor, so it cannot be "
            "rebuilt",
            "if you trust its source, pass trust_saved_model=True to run its own graph",
        )
    return TrustedSavedModel(folder, allow_ops)


def _tfhub_preprocessor(vocabulary: Path, lower_case: bool, seq_length: int) -> Any:
    options = TextOptions(dialect="tf_text", lower_case=lower_case)
    return BertPreprocessor(Vocabulary.from_file(vocabulary), options, seq_length)


def _own_preprocessor(vocabulary: Path, settings: Mapping[str, Any]) -> Any:
    text = Vocabulary.from_file(vocabulary).to_text()
    try:
        return BertPreprocessor.from_config({**settings, "vocabulary": text})
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise CheckpointError(
            f"{vocabulary.parent} holds settings that are not a preprocessor's ({error!r})", "export it again"
        ) from error


def _remember_vocabulary(encoder: Any, path: Path | None, lower_case: bool | None) -> None:
    """Give an encoder TF-Hub's attributes, which `export_saved_model` passes on."""
    if path is not None and path.is_file():
        encoder.vocab_file = os.fspath(path)
        if lower_case is not None:
            encoder.do_lower_case = lower_case


def _lower_case(folder: Path) -> bool | None:
    try:
        values = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    value = values.get("do_lower_case") if isinstance(values, dict) else None
    return value if isinstance(value, bool) else None


def _pull_model(folder: Path, form: Form) -> Any:
    """The model with its head: of the class in `architectures`, for TF1 of the one whose weights are there.

    Raises:
        CheckpointError: The class is not known here, or there is no head.
    """
    if form == "huggingface":
        return class_of(_named_head(folder)).from_pretrained(folder)
    checkpoint = read_form(folder, form)
    return _build_model(
        checkpoint, folder, _named_head(folder) if form in ("pytorch", "tensorflow") else None
    )


def _build_model(checkpoint: Checkpoint, folder: Path, head: HeadSpec | None = None) -> Any:
    """A model of a checkpoint that has been read.

    Args:
        checkpoint: What a reader gave.
        folder: Where it comes from, for messages.
        head: Its head; by default the one whose weights the checkpoint holds.

    Raises:
        CheckpointError: It holds the weights of no head.
    """
    config, state = checkpoint.config, checkpoint.state
    head = head or head_in(state)
    if head is None:
        raise CheckpointError(f"{folder} holds an encoder without a head", "pull it as component='encoder'")
    return build_head(class_of(head), config, state, folder)


def _named_head(folder: Path) -> HeadSpec:
    BertConfig.from_json(folder / "config.json", source="huggingface")  # says what is wrong with the file
    head = named_head(folder / "config.json")
    if head is None:
        named = json.loads((folder / "config.json").read_text(encoding="utf-8")).get("architectures")
        architecture = named[0] if isinstance(named, list) and named else None
        known = [f"Bert{head.suffix}" for head in heads() if head != ENCODER]
        raise CheckpointError(
            f"{folder / 'config.json'} names the architecture {architecture!r}",
            f"known are {', '.join(known)}, so call from_pretrained of the class you want, or "
            "pull its encoder",
        )
    return head
