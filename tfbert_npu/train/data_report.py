"""What the data looks like before a training starts: how many examples each class has, how long texts are."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
from rich.bar import Bar
from rich.console import Console
from rich.table import Table

_SHOWN = 12
"""Classes beyond which only the largest and the smallest are shown."""


def show_data(classes: Mapping[str, Counter[str]], lengths: Sequence[int], seq_length: int) -> None:
    """Print to standard error the balance of the classes and a histogram of lengths.

    Args:
        classes: Part of the data, such as `"training"` -> how often each class is in it. The first one orders
            the classes; if it has none, there is no table of them.
        lengths: Lengths in tokens.
        seq_length: Tokens of a row; what is longer is cut.
    """
    console = Console(stderr=True)
    first, *_ = classes.values()
    if first:
        console.print(f"{len(first)} labels")
        console.print(_balance(classes, [name for name, _ in first.most_common()]))
    if lengths:
        p50, p95, p99 = np.quantile(lengths, [0.5, 0.95, 0.99]).round().astype(int)
        console.print(
            f"tokens of {len(lengths)} texts: half have up to {p50}, 95 % up to {p95}, 99 % up to {p99}",
            soft_wrap=True,
        )
        console.print(_histogram(np.array(lengths), seq_length))


def _balance(classes: Mapping[str, Counter[str]], names: Sequence[str]) -> Table:
    table = Table(box=None, pad_edge=False)
    table.add_column("label")
    for part in classes:
        table.add_column(part, justify="right")
    most, least = names, names[:0]
    if len(names) > _SHOWN:
        most, least = names[: _SHOWN // 2], names[-_SHOWN // 2 :]
    for name in most:
        table.add_row(name, *(_share(counts, [name]) for counts in classes.values()))
    if least:
        others = names[len(most) : -len(least)]
        table.add_row(
            f"({len(others)} others)", *(_share(counts, others) for counts in classes.values()), style="dim"
        )
    for name in least:
        table.add_row(name, *(_share(counts, [name]) for counts in classes.values()))
    return table


def _share(counts: Counter[str], names: Sequence[str]) -> str:
    count = sum(counts[name] for name in names)
    return f"{count} ({count / max(counts.total(), 1):.1%})"


def _histogram(lengths: np.ndarray, seq_length: int) -> Table:
    table = Table(box=None, pad_edge=False, show_header=False)
    # Powers of two from the shortest to the longest text, and the length at which texts are cut.
    low, high = (int(np.ceil(np.log2(max(length, 1)))) for length in (lengths.min(), lengths.max()))
    edges = sorted({2**power for power in range(low, high + 1)} | {seq_length})
    places = np.searchsorted(edges, lengths)
    counts = np.bincount(places, minlength=len(edges))
    for edge, count in zip(edges, counts, strict=True):
        mark = "--seq-length" if edge == seq_length else ""
        table.add_row(f"to {edge}", str(count), Bar(int(counts.max()), 0, int(count), width=30), mark)
    for column in table.columns[:2]:
        column.justify = "right"
    return table
