"""`tfbert-npu fill-mask`, `classify`, `ner` and `qa`: ask a trained model."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import get_args

import click

from tfbert_npu import tasks
from tfbert_npu.cli import asking
from tfbert_npu.cli.text_input import text_windows
from tfbert_npu.tasks.entities import entity_labels_of
from tfbert_npu.tasks.schemes import SchemeName, recognize_scheme


@click.command("fill-mask")
@asking.options
@click.option(
    "--top-k", type=click.IntRange(min=1), default=5, show_default=True, help="Words for each [MASK]."
)
def fill_mask(
    model: str,
    source: str,
    top_k: int,
    seq_length: int | None,
    batch_size: int,
    where: asking.Where,
    as_json: bool,
) -> None:
    """Say which words MODEL puts in the place of each [MASK].

    Example: echo "Paris is the [MASK] of France." | tfbert-npu fill-mask google-bert/bert-base-uncased
    """
    with where.load(model, "fill-mask") as loaded:
        for texts in text_windows(source, asking.WINDOW):
            filled = tasks.fill_mask(loaded, texts, top_k=top_k, seq_length=seq_length, batch_size=batch_size)
            for text, masks in zip(texts, filled, strict=True):
                if as_json:
                    asking.print_json(text, masks=[[asdict(one) for one in mask] for mask in masks])
                for mask in [] if as_json else masks:
                    click.echo(f"{text}\t" + "  ".join(f"{one.token_str} {one.score:.3f}" for one in mask))


@click.command()
@asking.options
@click.option("--pair-separator", help="A line holds two texts, separated by this.")
@click.option(
    "--top-k", type=click.IntRange(min=1), default=1, show_default=True, help="Labels for each text."
)
def classify(
    model: str,
    source: str,
    pair_separator: str | None,
    top_k: int,
    seq_length: int | None,
    batch_size: int,
    where: asking.Where,
    as_json: bool,
) -> None:
    """Say which label MODEL gives to each text, or pair of texts.

    Example: echo "Can I get a refund?" | tfbert-npu classify out/mine
    """
    with where.load(model, "classify") as loaded:
        for lines in text_windows(source, asking.WINDOW):
            texts, pairs = (lines, None) if pair_separator is None else _separated(lines, pair_separator)
            scored = tasks.classify(loaded, texts, pairs, seq_length=seq_length, batch_size=batch_size)
            for line, labels in zip(lines, scored, strict=True):
                if as_json:
                    asking.print_json(line, labels=[asdict(one) for one in labels[:top_k]])
                else:
                    shown = (f"{one.label} {one.score:.3f}" for one in labels[:top_k])
                    click.echo("\t".join((*shown, line)))


def _separated(lines: list[str], separator: str) -> tuple[list[str], list[str]]:
    firsts, seconds = [], []
    for line in lines:
        first, found, second = line.partition(separator)
        if not found:
            raise ValueError(f"the line {line[:60]!r} holds no {separator!r}, which must separate two texts")
        firsts.append(first)
        seconds.append(second)
    return firsts, seconds


@click.command()
@asking.options
@click.option(
    "--scheme",
    type=click.Choice(get_args(SchemeName)),
    help="How labels mark entities; by default recognized from their names.",
)
def ner(
    model: str,
    source: str,
    scheme: SchemeName | None,
    seq_length: int | None,
    batch_size: int,
    where: asking.Where,
    as_json: bool,
) -> None:
    """Say which named entities MODEL finds in each text, and at which characters.

    Example: echo "Anna lives in Berlin." | tfbert-npu ner out/ner
    """
    with where.load(model, "ner") as loaded:
        click.echo(f"label scheme: {recognize_scheme(entity_labels_of(loaded, None), scheme)}", err=True)
        for texts in text_windows(source, asking.WINDOW):
            found = tasks.ner(loaded, texts, scheme=scheme, seq_length=seq_length, batch_size=batch_size)
            for text, entities in zip(texts, found, strict=True):
                if as_json:
                    asking.print_json(text, entities=[asdict(one) for one in entities])
                    continue
                shown = (
                    f"{one.entity_group} {one.word!r} {one.start}-{one.end} {one.score:.3f}"
                    for one in entities
                )
                click.echo("\t".join((text, *shown)))


@click.command()
@click.argument("model")
@click.option("--question", required=True, help="What to look for.")
@click.option(
    "--context", "context_file", required=True, metavar="FILE", help="Text to look in; - is standard input."
)
@click.option("--top-k", type=click.IntRange(min=1), default=1, show_default=True, help="Answers.")
@click.option("--no-answer", is_flag=True, help="The text may not answer the question.")
@click.option(
    "--stride",
    type=click.IntRange(min=0),
    help="Overlap of windows in tokens; by default 128, or a third of a shorter window.",
)
@asking.seq_length
@asking.where
@asking.as_json
def qa(
    model: str,
    question: str,
    context_file: str,
    top_k: int,
    no_answer: bool,
    stride: int | None,
    seq_length: int | None,
    where: asking.Where,
    as_json: bool,
) -> None:
    """Find the answer to --question in a text of any length with MODEL.

    Example: tfbert-npu qa out/qa --question "Who ran?" --context story.txt
    """
    with click.open_file(context_file, encoding="utf-8") as stream:
        context = stream.read()
    with where.load(model, "qa") as loaded:
        (answers,) = tasks.answer(
            loaded,
            [question],
            [context],
            top_k=top_k,
            no_answer=no_answer,
            seq_length=seq_length,
            stride=stride,
        )
    for found in answers:
        if as_json:
            click.echo(json.dumps(asdict(found), ensure_ascii=False))
        else:
            click.echo(f"{found.answer or '(no answer)'}\t{found.start}-{found.end}\t{found.score:.3f}")
