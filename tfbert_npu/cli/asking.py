"""What the commands that ask a model share."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import click

from tfbert_npu.tasks.loading import BACKENDS, Backend, TaskModel, load

WINDOW = 512  # texts of a file that are read and answered at a time

backend = click.option(
    "--backend",
    type=click.Choice(BACKENDS),
    default="auto",
    show_default=True,
    help="What computes: tf for a checkpoint; onnx or openvino for an artifact or a checkpoint, which is "
    "converted once; any other for an artifact. auto takes TensorFlow for a checkpoint, and for an artifact "
    "the NPU where there is one, else the CPU.",
)
revision = click.option("--revision", help="Branch, tag or commit of a hub repository.")
file = click.option(
    "--file", metavar="NAME", help="The one of an artifact's .rknn files to run, such as rknn/model_o3.rknn."
)
as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
seq_length = click.option(
    "--seq-length",
    type=click.IntRange(min=8),
    help="Tokens of a row; by default the artifact's longest shape, else 128, for questions 384.",
)
batch_size = click.option(
    "--batch-size", type=click.IntRange(min=1), default=32, show_default=True, help="Texts per call."
)
source = click.option(
    "--input", "source", default="-", metavar="FILE", help="Texts, one per line; - is standard input."
)


@dataclass(frozen=True)
class Where:
    """What computes a model, and where its files come from."""

    backend: Backend
    revision: str | None
    file: str | None

    @property
    def hub_options(self) -> dict[str, Any]:
        """Arguments of `tasks.load` beside the backend."""
        return {"revision": self.revision, "file": self.file}

    def load(self, model: str, command: str) -> TaskModel:
        """The model, for a command."""
        return load(model, command, self.backend, **self.hub_options)


def where(function: Callable[..., Any]) -> Callable[..., Any]:
    """`--backend`, `--revision` and `--file`, as one argument."""

    @functools.wraps(function)
    def wrapped(backend: Backend, revision: str | None, file: str | None, **others: Any) -> Any:
        return function(where=Where(backend, revision, file), **others)

    return backend(revision(file(wrapped)))


def options(function: Callable[..., Any]) -> Callable[..., Any]:
    """The options of a command that asks a model about texts, one per line."""
    function = where(function)
    for option in (as_json, seq_length, batch_size, source, click.argument("model")):
        function = option(function)
    return function


def print_json(text: str, **results: Any) -> None:
    """A line of JSON about a text."""
    click.echo(json.dumps({"text": text, **results}, ensure_ascii=False))
