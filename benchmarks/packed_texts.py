"""Bulk work on three cores of an RK3588: one text a call, in buckets, against several texts in a row.

    python benchmarks/packed_texts.py --model DIRECTORY --texts banking77/train.csv --texts xquad.json

Texts: a file with one per line, or a CSV file whose first column holds them. Every call takes its predicted
time, see `rknn.time_model`; calls go to the core that is free first, and nothing else is counted.
"""

from __future__ import annotations

import csv
import heapq
from collections.abc import Iterable, Sequence
from pathlib import Path

import click
import numpy as np

from tfbert_npu import BertTokenizer
from tfbert_npu.artifact.packing import pack
from tfbert_npu.config import BertConfig
from tfbert_npu.platforms import platform_named
from tfbert_npu.rknn.options import buckets
from tfbert_npu.rknn.time_model import predict, work_of_encoder
from tfbert_npu.runtime.router import place

CORES = 3
REQUEST = 256
"""Texts that are placed or packed together."""


@click.command(help=__doc__)
@click.option("--model", type=click.Path(exists=True, path_type=Path), required=True)
@click.option("--texts", "files", type=click.Path(exists=True, path_type=Path), multiple=True, required=True)
@click.option("--width", "widths", type=int, multiple=True, default=(64, 128, 256), show_default=True)
def main(model: Path, files: tuple[Path, ...], widths: tuple[int, ...]) -> None:
    """Print a table for each file."""
    config = BertConfig.from_json(model / "config.json", source="huggingface")
    tokenizer = BertTokenizer.from_pretrained(model)
    for file in files:
        texts = _read(file)
        lengths = tokenizer(texts, seq_length=256)["input_mask"].sum(axis=1)
        click.echo(f"\n{file.name}: {len(texts)} texts, {lengths.mean():.1f} tokens on average")
        click.echo("| [predicted] | calls | tokens computed | ms a text, one core | texts/s, 3 cores | |")
        click.echo("|---|---|---|---|---|---|")
        shapes = buckets(config)
        times = {shape: _time(config, shape[1]) for shape in {*shapes, *((1, width) for width in widths)}}
        base = _row("buckets, one text a call", lengths, _placed(lengths, shapes), times, None)
        for width in widths:
            calls = [(1, width) for part in _parts(lengths[lengths <= width]) for _ in pack(part, [width])]
            # What is longer than a row goes alone, through the buckets.
            calls += _placed(lengths[lengths > width], shapes)
            _row(f"packed into 1x{width}", lengths, calls, times, base)


def _placed(lengths: np.ndarray, shapes: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    return [placement.shape for part in _parts(lengths) for placement in place(part, shapes, CORES)]


def _row(
    name: str,
    lengths: np.ndarray,
    calls: Sequence[tuple[int, int]],
    times: dict[tuple[int, int], float],
    base: float | None,
) -> float:
    each = [times[shape] for shape in calls]
    wall, texts = _schedule(each), len(lengths)
    computed = sum(length for _, length in calls) / lengths.sum()
    rate = texts / wall * 1e3
    click.echo(
        f"| {name} | {len(calls)} | {computed:.2f} x | {sum(each) / texts:.2f} | {rate:.0f} | "
        f"{rate / (base or rate):.2f} |"
    )
    return rate


def _schedule(times: Iterable[float]) -> float:
    """Milliseconds until the last core has ended, each call on the core that is free first."""
    cores = [0.0] * CORES
    for one in times:
        heapq.heapreplace(cores, cores[0] + one)
    return max(cores)


def _time(config: BertConfig, length: int) -> float:
    work = work_of_encoder(
        layers=config.num_hidden_layers,
        hidden=config.hidden_size,
        heads=config.num_attention_heads,
        inner=config.intermediate_size,
        length=length,
        int8=False,
        slices=1,
    )
    return predict(work, platform_named("rk3588")).milliseconds


def _parts(lengths: np.ndarray) -> list[np.ndarray]:
    return [lengths[start : start + REQUEST] for start in range(0, len(lengths), REQUEST)]


def _read(file: Path) -> list[str]:
    with open(file, encoding="utf-8", newline="") as stream:
        if file.suffix == ".csv":
            rows = csv.reader(stream)
            next(rows)
            return [row[0] for row in rows]
        return [line.strip() for line in stream if line.strip()]


if __name__ == "__main__":
    main()
