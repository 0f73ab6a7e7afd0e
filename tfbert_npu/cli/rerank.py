"""`tfbert-npu rerank`: texts by how well they answer a query."""

from __future__ import annotations

import json
from dataclasses import asdict

import click

from tfbert_npu import tasks
from tfbert_npu.cli import asking
from tfbert_npu.cli.text_input import text_windows


@click.command()
@click.argument("model")
@click.argument("source", default="-", metavar="[FILE]")
@click.option("--query", required=True, help="What the texts are to answer.")
@click.option("--top-k", type=click.IntRange(min=1), help="How many to print; by default all.")
@asking.batch_size
@click.option(
    "--seq-length",
    type=click.IntRange(min=8),
    help="Tokens of a pair; by default the artifact's longest shape, else all positions.",
)
@asking.where
@asking.as_json
def rerank(
    model: str,
    source: str,
    query: str,
    top_k: int | None,
    batch_size: int,
    seq_length: int | None,
    where: asking.Where,
    as_json: bool,
) -> None:
    """Order the texts of FILE, one per line, by MODEL's score of each with --query; - is standard input.

    MODEL is a cross-encoder: a sequence classifier with one label.

    Example: tfbert-npu rerank cross-encoder/ms-marco-MiniLM-L6-v2 --query "Who ran?" texts.txt --top-k 3
    """
    texts = [text for window in text_windows(source, asking.WINDOW) for text in window]
    with where.load(model, "rerank") as loaded:
        found = tasks.rerank(loaded, query, texts, top_k, seq_length=seq_length, batch_size=batch_size)
    for one in found:
        if as_json:
            click.echo(json.dumps(asdict(one), ensure_ascii=False))
        else:
            click.echo(f"{one.score:.4f}\t{one.index}\t{one.text}")
