"""A checkpoint of whatever form, from a hub repository or a directory: what every `from_pretrained` reads."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from tfbert_npu.checkpoints.checkpoint import Checkpoint
from tfbert_npu.checkpoints.google import read_google
from tfbert_npu.checkpoints.layout import Form, Layout, find_layout
from tfbert_npu.checkpoints.pytorch import read_pickles
from tfbert_npu.checkpoints.safetensors_files import read_tensors
from tfbert_npu.checkpoints.saved_model import read_saved_model
from tfbert_npu.checkpoints.state import to_state
from tfbert_npu.checkpoints.tensorflow_weights import read_h5
from tfbert_npu.checkpoints.tfhub import kind_of, read_encoder
from tfbert_npu.config import BertConfig
from tfbert_npu.errors import CheckpointError
from tfbert_npu.heads import ENCODER, HeadSpec, head_of_class
from tfbert_npu.paths import list_files
from tfbert_npu.repository import local_directory


def read_pretrained(dir_or_repo: str | os.PathLike[str], **hub_options: Any) -> tuple[Checkpoint, Path]:
    """A checkpoint, and the directory on this machine that it was read from.

    Args:
        dir_or_repo: A directory or the id of a hub repository that holds, the first found counts, a Hugging
            Face checkpoint, a TF-Hub encoder, Google's TensorFlow 1 checkpoint, `tf_model.h5` or
            `pytorch_model.bin`; in its root or in its one folder that holds a model.
        **hub_options: `revision`, `token`, `cache_dir`, `local_files_only`; see `local_directory`.

    Raises:
        OSError: No such directory or repository, or a file is not in it.
        CheckpointError: No model of these forms, or a file that is damaged or describes another model.
    """
    name = os.fspath(dir_or_repo)
    directory = local_directory(
        dir_or_repo, lambda files: _wanted_files(layout_in(files, name)), **hub_options
    )
    layout = layout_in(list_files(directory), name)
    folder = directory / layout.folder
    return read_form(folder, layout.form), folder


def named_head(config: Path) -> HeadSpec | None:
    """The head that a `config.json` names; None if that is an encoder or unknown."""
    values = json.loads(config.read_text(encoding="utf-8-sig"))
    named = values.get("architectures") if isinstance(values, dict) else None
    head = head_of_class(str(named[0])) if isinstance(named, list) and named else None
    return None if head == ENCODER else head


def read_form(folder: Path, form: Form) -> Checkpoint:
    """Read a folder whose form is known.

    Raises:
        FileNotFoundError: A file is missing.
        CheckpointError: A file is damaged or describes another model, or PyTorch is needed and not installed.
    """
    if form == "google":
        return read_google(folder)
    if form == "saved_model":
        return _read_tfhub(folder)
    if form == "npu":
        raise CheckpointError(
            f"{folder} holds an artifact for a Rockchip NPU and no weights that Keras can load",
            "load the model it was made from",
        )
    config = BertConfig.from_json(folder / "config.json", source="huggingface")
    try:
        if form == "huggingface":
            return Checkpoint(config, to_state(read_tensors(folder), config))
        if form == "tensorflow":
            return Checkpoint(config, to_state(read_h5(folder), config))
        return Checkpoint(config, to_state(read_pickles(folder), config))
    except CheckpointError as error:
        raise error.within(folder) from error


def _read_tfhub(folder: Path) -> Checkpoint:
    model = read_saved_model(folder)
    model.refuse_dangerous_ops(())
    kind = kind_of(model)
    if kind != "encoder":
        found = "a TF-Hub preprocessor" if kind == "preprocessor" else "a SavedModel of some other kind"
        raise CheckpointError(
            f"{folder} is {found} and no BERT encoder", "give the encoder that belongs to it"
        )
    return read_encoder(model)


def layout_in(files: Sequence[str], name: str, *, artifact_first: bool = False) -> Layout:
    """The form of the model called `name` that these files are; see `find_layout`.

    Raises:
        FileNotFoundError: There are no files.
        CheckpointError: They are no model, and not a part of one whose reader could say what is missing.
    """
    try:
        return find_layout(files, "encoder", artifact_first=artifact_first)
    except CheckpointError as error:
        there = [file for file in files if file == "config.json" or file.endswith(".safetensors")]
        if there:
            return Layout("huggingface", "", tuple(there))  # its reader says what it lacks
        if not files:
            raise FileNotFoundError(f"{name} is empty: {error}") from error
        raise error.within(name) from error


def _wanted_files(layout: Layout) -> list[str]:
    """The files to download: those of the form, without a tokenizer's."""
    if layout.form not in ("huggingface", "pytorch", "tensorflow"):
        return list(layout.files)
    names = {path: PurePosixPath(path).name for path in layout.files}
    return [
        path
        for path, name in names.items()
        if name == "config.json" or re.search(r"\.(safetensors|bin|h5)", name)
    ]
