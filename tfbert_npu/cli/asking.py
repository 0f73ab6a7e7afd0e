"""What the commands that ask a model share."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import click

from tfbert_npu.tasks.loading import BACKENDS

WINDOW = 512  # texts of a file that are read and answered at a time

backend = click.option(
    "--backend",
    type=click.Choice(BACKENDS),
    default="auto",
    show_default=True,
    help="What computes: tf for a checkpoint, any other for an artifact; auto takes TensorFlow for a "
    "checkpoint, and for an artifact the NPU where there is one, else the CPU.",
)
revision = click.option("--revision", help="Branch, tag or commit of a hub repository.")
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


def options(function: Callable[..., Any]) -> Callable[..., Any]:
    """The options of a command that asks a model about texts, one per line."""
    for option in (as_json, revision, backend, seq_length, batch_size, source, click.argument("model")):
        function = option(function)
    return function


def print_json(text: str, **results: Any) -> None:
    """A line of JSON about a text."""
    click.echo(json.dumps({"text": text, **results}, ensure_ascii=False))
