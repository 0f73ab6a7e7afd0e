"""`tfbert-npu fill-mask`, `classify`, `ner` and `qa`: ask a trained model."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import Any, get_args

import click

from tfbert_npu.tasks.schemes import SchemeName, recognize_scheme

_WINDOW = 512  # texts read and answered at a time


def _options(function: Callable[..., Any]) -> Callable[..., Any]:
    for option in (
        click.option("--json", "as_json", is_flag=True, help="Print JSON lines."),
        click.option("--revision", help="Branch, tag or commit of a hub repository."),
        click.option("--batch-size", type=click.IntRange(min=1), default=32, show_default=True),
        click.option(
            "--input", "source", default="-", metavar="FILE", help="Texts, one per line; - is standard input."
        ),
        click.argument("model"),
    ):
        function = option(function)
    return function


_SEQ_LENGTH = click.option("--seq-length", type=click.IntRange(min=8), default=128, show_default=True)


@click.command("fill-mask")
@_options
@click.option("--top-k", type=click.IntRange(min=1), default=5, show_default=True)
@_SEQ_LENGTH
def fill_mask(
    model: str, source: str, top_k: int, seq_length: int, batch_size: int, revision: str | None, as_json: bool
) -> None:
    """Say which words MODEL puts in the place of each [MASK]."""
    from tfbert_npu import BertForMaskedLM
    from tfbert_npu.tasks import fill_mask as run

    head, tokenizer = _load(BertForMaskedLM, model, revision)
    for texts in _texts(source):
        filled = run(head, tokenizer, texts, top_k=top_k, seq_length=seq_length, batch_size=batch_size)
        for text, masks in zip(texts, filled, strict=True):
            if as_json:
                _print_json(text, masks=[[asdict(one) for one in mask] for mask in masks])
            for mask in [] if as_json else masks:
                click.echo(f"{text}\t" + "  ".join(f"{one.token} {one.score:.3f}" for one in mask))


@click.command()
@_options
@click.option("--pair-separator", help="A line holds two texts, separated by this.")
@click.option("--top-k", type=click.IntRange(min=1), default=1, show_default=True)
@_SEQ_LENGTH
def classify(
    model: str,
    source: str,
    pair_separator: str | None,
    top_k: int,
    seq_length: int,
    batch_size: int,
    revision: str | None,
    as_json: bool,
) -> None:
    """Say which label MODEL gives to each text, or pair of texts."""
    from tfbert_npu import BertForSequenceClassification
    from tfbert_npu.tasks import classify as run

    head, tokenizer = _load(BertForSequenceClassification, model, revision)
    for lines in _texts(source):
        texts, pairs = lines, None
        if pair_separator is not None:
            separated = [line.split(pair_separator, 1) for line in lines]
            alone = next(
                (line for line, parts in zip(lines, separated, strict=True) if len(parts) == 1), None
            )
            if alone is not None:
                raise ValueError(
                    f"the line {alone[:60]!r} holds no {pair_separator!r}; it must part two texts"
                )
            texts, pairs = [parts[0] for parts in separated], [parts[1] for parts in separated]
        scored = run(head, tokenizer, texts, pairs, seq_length=seq_length, batch_size=batch_size)
        for line, labels in zip(lines, scored, strict=True):
            if as_json:
                _print_json(line, labels=[asdict(one) for one in labels[:top_k]])
            else:
                click.echo("\t".join(f"{one.label} {one.score:.3f}" for one in labels[:top_k]) + f"\t{line}")


@click.command()
@_options
@click.option(
    "--scheme",
    type=click.Choice(get_args(SchemeName)),
    help="How labels mark entities; by default recognized from their names.",
)
@_SEQ_LENGTH
def ner(
    model: str,
    source: str,
    scheme: SchemeName | None,
    seq_length: int,
    batch_size: int,
    revision: str | None,
    as_json: bool,
) -> None:
    """Say which named entities MODEL finds in each text, and at which characters."""
    from tfbert_npu import BertForTokenClassification
    from tfbert_npu.tasks import ner as run
    from tfbert_npu.tasks.running import labels_of

    head, tokenizer = _load(BertForTokenClassification, model, revision)
    labels = labels_of(head, None)
    click.echo(f"label scheme: {recognize_scheme(labels, scheme)}", err=True)
    for texts in _texts(source):
        found = run(head, tokenizer, texts, scheme=scheme, seq_length=seq_length, batch_size=batch_size)
        for text, entities in zip(texts, found, strict=True):
            if as_json:
                _print_json(text, entities=[asdict(one) for one in entities])
            else:
                shown = (
                    f"{one.label} {one.text!r} {one.start}-{one.end} {one.score:.3f}" for one in entities
                )
                click.echo("\t".join([text, *shown]))


@click.command()
@click.argument("model")
@click.option("--question", required=True)
@click.option(
    "--context", "context_file", required=True, metavar="FILE", help="Text to look in; - is standard input."
)
@click.option("--top-k", type=click.IntRange(min=1), default=1, show_default=True)
@click.option("--no-answer", is_flag=True, help="The text may not answer the question.")
@click.option("--seq-length", type=click.IntRange(min=8), default=384, show_default=True)
@click.option("--stride", type=click.IntRange(min=0), default=128, show_default=True)
@click.option("--revision", help="Branch, tag or commit of a hub repository.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON lines.")
def qa(
    model: str,
    question: str,
    context_file: str,
    top_k: int,
    no_answer: bool,
    seq_length: int,
    stride: int,
    revision: str | None,
    as_json: bool,
) -> None:
    """Find the answer to --question in a text of any length with MODEL."""
    from tfbert_npu import BertForQuestionAnswering
    from tfbert_npu.tasks import answer

    with click.open_file(context_file, encoding="utf-8") as stream:
        context = stream.read()
    head, tokenizer = _load(BertForQuestionAnswering, model, revision)
    (answers,) = answer(
        head,
        tokenizer,
        [question],
        [context],
        top_k=top_k,
        no_answer=no_answer,
        seq_length=min(seq_length, head.config.max_position_embeddings),
        stride=stride,
    )
    for found in answers:
        if as_json:
            click.echo(json.dumps(asdict(found), ensure_ascii=False))
        else:
            click.echo(f"{found.text or '(no answer)'}\t{found.start}-{found.end}\t{found.score:.3f}")


def _load(head: Any, model: str, revision: str | None) -> tuple[Any, Any]:
    from tfbert_npu import BertTokenizer

    return head.from_pretrained(model, revision=revision), BertTokenizer.from_pretrained(
        model, revision=revision
    )


def _texts(source: str) -> Iterator[list[str]]:
    from tfbert_npu.cli.text_input import open_texts, read_texts

    name = "standard input" if source == "-" else str(Path(source))
    with open_texts(source) as (stream, _):
        lines = read_texts(stream, name, lambda count: None)
        while window := list(islice(lines, _WINDOW)):
            yield window


def _print_json(text: str, **results: Any) -> None:
    click.echo(json.dumps({"text": text, **results}, ensure_ascii=False))
