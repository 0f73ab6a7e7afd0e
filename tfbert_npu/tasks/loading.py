"""`load`: a model of any kind and all that it takes to ask it, for every task and every backend."""

from __future__ import annotations

import functools
import logging
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any, Concatenate, Literal, ParamSpec, Protocol, TypeVar, get_args, overload

from tfbert_npu.checkpoints.checkpoint import Checkpoint
from tfbert_npu.checkpoints.layout import Form, Layout, layout_of_file
from tfbert_npu.checkpoints.reading import layout_in, named_head, read_form
from tfbert_npu.checkpoints.sentence_options import SENTENCE_FILES
from tfbert_npu.config import BertConfig, ProblemType
from tfbert_npu.errors import CheckpointError, require
from tfbert_npu.heads import ENCODER, HeadSpec, head_in
from tfbert_npu.onnx.cache import ConversionError, entry_key, kept_directory, open_entry
from tfbert_npu.paths import list_files
from tfbert_npu.preprocess import BertTokenizer, TextOptions, Vocabulary
from tfbert_npu.preprocess.saving import save_tokenizer
from tfbert_npu.repository import local_directory
from tfbert_npu.runtime import load_npu
from tfbert_npu.runtime.load import BackendChoice, Cores
from tfbert_npu.runtime.model import NpuModel
from tfbert_npu.tasks.running import (
    Arrays,
    check_command,
    check_head,
    head_of,
    labels_of,
    problem_type_of,
)

Backend = Literal["tf"] | BackendChoice
BACKENDS: tuple[str, ...] = ("tf", *get_args(BackendChoice))

_LOG = logging.getLogger(__name__)
P = ParamSpec("P")
T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


@dataclass(frozen=True, eq=False)
class TaskModel:
    """A model that can be asked: what computes it, its tokenizer, head and labels. Made by `load`.

    A context manager; leaving it gives back what the backend holds.
    """

    name: str
    """As it was named to `load`."""
    folder: Path
    """Where its files are."""
    config: BertConfig
    tokenizer: BertTokenizer
    head: HeadSpec | None
    """What stands on the encoder; None: nothing says so."""
    run: Callable[[Arrays], Any]
    """From the three inputs, int32 [B, S], to an array or a dict of arrays."""
    npu: NpuModel | None = None
    """The artifact that computes; None: TensorFlow does."""

    @property
    def labels(self) -> tuple[str, ...]:
        """The label names; those that transformers would give where the model's files have none."""
        return labels_of(self, None)

    @property
    def problem_type(self) -> ProblemType:
        """The configuration's, else regression for one label and single label for more."""
        return problem_type_of(self)

    @property
    def shapes(self) -> tuple[tuple[int, int], ...]:
        """The compiled shapes that it computes; empty: any."""
        return () if self.npu is None else self.npu.shapes

    @property
    def packed(self) -> bool:
        """Whether several texts go into one row."""
        return self.npu is not None and self.npu.packed

    @property
    def runs_on(self) -> str:
        """What computes."""
        return "tf" if self.npu is None else self.npu.runs_on

    def close(self) -> None:
        """Give back what the backend holds."""
        if self.npu is not None:
            self.npu.close()

    def __enter__(self) -> TaskModel:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def load(
    model: str | os.PathLike[str],
    command: str | None = None,
    backend: Backend = "auto",
    *,
    cores: Cores = "auto",
    threads: int | None = None,
    revision: str | None = None,
    token: str | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
    local_files_only: bool = False,
    file: str | None = None,
) -> TaskModel:
    """Load a model with its tokenizer, labels and text options, for `classify`, `ner` and the other tasks.

    Args:
        model: A checkpoint, a hub repository, or an artifact: what `export_rknn` or `export_onnx` wrote.
        command: What it will be asked, such as `"ner"`, so that another model is refused at once; `"embed"`
            takes the encoder of a checkpoint with a head. By default the head that its files name.
        backend: What computes. `"tf"`: TensorFlow, for a checkpoint. `"onnx"`, `"openvino"`: that engine on
            the CPU; a checkpoint is converted once, see `onnx.cache`, and stays on TensorFlow where its graph
            is not the model. Any other: an artifact, see `load_npu`. `"auto"`: TensorFlow for a checkpoint;
            for an artifact the NPU where there is one, else the CPU. None but `"tf"` imports TensorFlow,
            except to check a conversion.
        cores: NPU cores; see `load_npu`.
        threads: CPU threads of the `onnx` and `openvino` backends.
        revision: Branch, tag or commit of a hub repository.
        token: Hub access token.
        cache_dir: Where downloads are kept.
        local_files_only: Never ask the network.
        file: The one of an artifact's `.rknn` files that is to run, such as `"rknn/model_o3.rknn"`; a
            directory of rk-transformers may hold several.

    Raises:
        OSError: No such model, or a file of it is missing.
        CheckpointError: It is damaged, or of no known form.
        TaskError: Its head is for something else than `command`.
        MissingExtraError: What the backend needs is not installed.
        ValueError: The backend cannot run such a model.

    Example:
        >>> from tfbert_npu import tasks
        >>> model = tasks.load("out/mine", backend="onnx")  # doctest: +SKIP
        >>> tasks.classify(model, "Can I get a refund?")  # doctest: +SKIP
    """
    if backend not in BACKENDS:
        raise ValueError(f"backend must be one of {', '.join(BACKENDS)}, got {backend!r}")
    name, first = os.fspath(model), backend != "tf"

    def wanted(files: Any) -> list[str]:
        layout = _layout(files, name, first, file)
        beside = [file for file in files if any(Path(file).match(pattern) for pattern in SENTENCE_FILES)]
        return [*layout.files, *beside]

    directory = local_directory(
        model,
        wanted,
        revision=revision,
        token=token,
        cache_dir=cache_dir,
        local_files_only=local_files_only,
    )
    layout = _layout(list_files(directory), name, first, file)
    folder = directory / layout.folder
    if layout.form == "npu":
        if backend == "tf":
            raise ValueError(
                f"backend='tf' cannot run the artifact {name}; leave it out, or give the checkpoint"
            )
        within = file and file.removeprefix(layout.folder)
        return _artifact(name, folder, command, backend, cores, threads, within)
    if backend == "onnx" or backend == "openvino":
        return _converted(name, folder, layout, command, backend, cores, threads)
    if backend not in ("auto", "tf"):
        raise ValueError(
            f"backend={backend!r} runs an artifact, and {name} is a checkpoint; export it first with "
            "tfbert-npu export rknn, or give --backend onnx"
        )
    return _checkpoint(name, folder, layout.form, command)


def _layout(files: Sequence[str], name: str, artifact_first: bool, file: str | None) -> Layout:
    if file is None:
        return layout_in(files, name, artifact_first=artifact_first)
    if not any(one.endswith(".rknn") for one in files):
        raise ValueError(f"file={file!r} names a .rknn file, and {name} holds none; leave it out")
    return layout_of_file(files, file)


def _artifact(
    name: str,
    folder: Path,
    command: str | None,
    backend: BackendChoice,
    cores: Cores,
    threads: int | None,
    file: str | None,
) -> TaskModel:
    npu = load_npu(folder, backend, cores, threads=threads, file=file)
    try:
        head = head_of(npu)
        if head is None and (folder / "config.json").is_file():
            head = named_head(folder / "config.json")
        tokenizer = BertTokenizer.from_directory(folder, name)
        loaded = TaskModel(name, folder, npu.config, tokenizer, head, npu, npu)
        check_command(loaded, command)
    except BaseException:
        npu.close()
        raise
    return loaded


def _converted(
    name: str,
    folder: Path,
    layout: Layout,
    command: str | None,
    backend: Literal["onnx", "openvino"],
    cores: Cores,
    threads: int | None,
) -> TaskModel:
    """A checkpoint as ONNX: from the cache, or converted into it."""
    require("onnxruntime" if backend == "onnx" else "openvino", backend)
    beside = [file for pattern in SENTENCE_FILES for file in folder.glob(pattern)]
    files = [file.removeprefix(layout.folder) for file in layout.files]
    files += [file.relative_to(folder).as_posix() for file in beside]

    def convert() -> Callable[[Path], object]:
        from tfbert_npu.onnx.conversion import Conversion  # `onnx`, which the next start does without

        found, head, tokenizer = _read(name, folder, layout.form, command)
        texts = folder
        if layout.form == "saved_model":
            texts = kept_directory()
            save_tokenizer(tokenizer.vocabulary, tokenizer.options, texts)
        conversion = Conversion(found.config, found.state, head, texts)
        conversion.check(name)
        reference = None
        if find_spec("tensorflow") is not None and find_spec("keras") is not None:
            reference = _keras().reference(found, head, folder)
        return lambda directory: conversion.write(directory, reference)

    def load_entry(entry: Path) -> TaskModel:
        loaded = _artifact(name, entry, command, backend, cores, threads, None)
        return replace(loaded, folder=folder)

    try:
        return open_entry(
            entry_key(folder, files, "encoder" if command == "embed" else "own"), convert, load_entry
        )
    except ConversionError as error:
        _LOG.warning("%s stays on TensorFlow: %s", name, error)
    return _checkpoint(name, folder, layout.form, command)


def _checkpoint(name: str, folder: Path, form: Form, command: str | None) -> TaskModel:
    require("tensorflow", "tf")
    require("keras", "tf")
    found, head, tokenizer = _read(name, folder, form, command)
    run, own = _keras().keras_function(found, head, folder)
    return TaskModel(name, folder, own, tokenizer, head, run)


def _keras() -> ModuleType:
    from tfbert_npu.tasks import in_keras  # TensorFlow, for this backend and to compare with it only

    return in_keras


def _read(
    name: str, folder: Path, form: Form, command: str | None
) -> tuple[Checkpoint, HeadSpec, BertTokenizer]:
    """A checkpoint with the head that a command asks, and its tokenizer."""
    found = read_form(folder, form)
    head = ENCODER
    if command != "embed":
        config = folder / "config.json"
        head = (named_head(config) if config.is_file() else None) or head_in(found.state) or ENCODER
        check_head(name, head, command)
        lacking = [tensor for tensor in head.required if tensor not in found.state]
        if lacking:
            raise CheckpointError(
                f"{name} is a Bert{head.suffix} without {', '.join(lacking)}", "train it before you ask it"
            )
    return found, head, _tokenizer(name, folder, form, found.vocabulary, found.lower_case)


def _tokenizer(
    name: str, folder: Path, form: Form, vocabulary: Path | None, lower_case: bool | None
) -> BertTokenizer:
    """The tokenizer of a checkpoint; TF-Hub's lies in the SavedModel's assets."""
    if form == "saved_model" and vocabulary is not None and lower_case is not None:
        return BertTokenizer(
            Vocabulary.from_file(vocabulary), TextOptions(dialect="tf_text", lower_case=lower_case)
        )
    return BertTokenizer.from_directory(folder, name)


class Ask(Protocol[P, T_co]):
    """A task: `task(model, texts, ...)` of a loaded model, or `task(model, preprocessor, texts, ...)`."""

    @overload
    def __call__(self, model: TaskModel, *args: P.args, **kwargs: P.kwargs) -> T_co: ...
    @overload
    def __call__(self, model: Any, preprocessor: Any, *args: P.args, **kwargs: P.kwargs) -> T_co: ...


def asks(command: str) -> Callable[[Callable[Concatenate[Any, Any, P], T]], Ask[P, T]]:
    """Decorator of a task: it takes a loaded model alone, and refuses one whose head is for another task."""

    def decorate(task: Callable[Concatenate[Any, Any, P], T]) -> Ask[P, T]:
        @functools.wraps(task)
        def ask(model: Any, *args: Any, **kwargs: Any) -> T:
            check_command(model, command)
            given = "preprocessor" in kwargs or (bool(args) and hasattr(args[0], "vocabulary"))
            if isinstance(model, TaskModel) and not given:
                return task(model, model.tokenizer, *args, **kwargs)
            return task(model, *args, **kwargs)

        return ask

    return decorate
