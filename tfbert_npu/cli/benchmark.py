"""`tfbert-npu benchmark`: what calls of models take on this machine."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import click
from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from tfbert_npu import tasks
from tfbert_npu.cli import asking
from tfbert_npu.cli.text_input import text_windows
from tfbert_npu.tasks.loading import BACKENDS, Backend
from tfbert_npu.tasks.timing import Benchmark


class _Shape(click.ParamType):
    name = "shape"

    def convert(
        self, value: str | tuple[int, int], param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[int, int]:
        if isinstance(value, tuple):
            return value
        batch, _, length = value.lower().partition("x")
        if not (batch.isdecimal() and length.isdecimal() and int(batch) and int(length)):
            self.fail(f"{value!r} is no shape; write batch and length, such as 1x128", param, ctx)
        return int(batch), int(length)


@click.command()
@click.argument("models", nargs=-1, required=True, metavar="MODEL...")
@click.option(
    "--backend",
    "backends",
    multiple=True,
    type=click.Choice([name for name in BACKENDS if name != "simulator"]),
    default=("auto",),
    help="What computes; several are compared. The simulator's time says nothing of an NPU.",
)
@click.option(
    "--instances",
    multiple=True,
    type=click.IntRange(min=1),
    default=(1,),
    help="Requests at the same time, each on an NPU core or in a session of its own; several are compared.",
)
@click.option("--shape", type=_Shape(), help="Random ids of this batch and length, such as 1x128.")
@click.option("--texts", "source", metavar="FILE", help="Texts of real lengths, one per line.")
@click.option("--batch", type=click.IntRange(min=1), default=1, help="Of --texts, how many are a request.")
@click.option("--threads", type=click.IntRange(min=1), help="CPU threads of each session of onnx.")
@click.option("--requests", type=click.IntRange(min=1), help="Of each contender in all; by default 100.")
@click.option("--duration", type=click.FloatRange(min=0.1), help="Seconds of each contender in all.")
@click.option("--rounds", type=click.IntRange(min=1), default=5, show_default=True, help="Turns.")
@asking.file
@asking.as_json
def benchmark(
    models: tuple[str, ...],
    backends: tuple[Backend, ...],
    instances: tuple[int, ...],
    shape: tuple[int, int] | None,
    source: str | None,
    batch: int,
    threads: int | None,
    requests: int | None,
    duration: float | None,
    rounds: int,
    file: str | None,
    as_json: bool,
) -> None:
    """Time MODEL, or several models, backends and numbers of instances against each other, in turns.

    A request is a call of the model; tokenizing is not in it. The ratio is that of texts per second to the
    first row: the median of the rounds, and the least and greatest.

    Example: tfbert-npu benchmark minilm-rk3588 --instances 1 --instances 3 --texts questions.txt
    """
    texts = None
    if source is not None:
        texts = [text for window in text_windows(source, asking.WINDOW) for text in window]
    found = tasks.benchmark(
        models,
        backends=backends,
        instances=instances,
        shape=shape,
        texts=texts,
        batch=batch,
        threads=threads,
        requests=requests,
        duration=duration,
        rounds=rounds,
        file=file,
    )
    if as_json:
        click.echo(json.dumps(asdict(found)))
    else:
        _print(found)


def _print(found: Benchmark) -> None:
    models = {one.model for one in found.timings}
    short = {model: Path(model).name for model in models}
    alike = len(set(short.values())) < len(models)
    table = Table(
        "model", "p50 ms", "p95", "p99", "texts/s", "tokens/s", "padding", "to the first", box=SIMPLE
    )
    for one in found.timings:
        low, high = one.ratio_range
        table.add_row(
            f"{one.model if alike else short[one.model]}, {one.backend} x{one.instances}",
            *(f"{value:.2f}" for value in (one.p50_ms, one.p95_ms, one.p99_ms)),
            f"{one.texts_per_second:.1f}",
            f"{one.tokens_per_second:.0f}",
            f"{one.padding_share:.1%}",
            f"{one.ratio:.2f} ({low:.2f}-{high:.2f})",
        )
    Console().print(table)
    requests = " and ".join(dict.fromkeys(f"{one.requests}" for one in found.timings))
    click.echo(
        f"{requests} requests of {found.request} in {found.rounds} rounds; "
        f"peak memory of the process {found.peak_memory_mb} MiB"
    )
    for clock in found.clocks:
        speed = f"{clock.current_hz // 10**6} of {clock.most_hz // 10**6} MHz"
        click.echo(f"{clock.name}: {speed}, governor {clock.governor}")
    for zone, (before, after) in found.temperatures.items():
        click.echo(f"{zone}: {before:.1f} to {after:.1f} °C")
