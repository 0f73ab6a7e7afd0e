"""Pictures of an export: where its cost goes, and what a search for int8 measured."""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tfbert_npu.errors import ArtifactError, require

_LAYER = re.compile(r"encoder\.layer\.(\d+)")
_KINDS = 8


def draw_costs(rows: Mapping[str, Sequence[Mapping[str, Any]]], path: str | os.PathLike[str]) -> None:
    """Draw the operators of the largest shape; needs matplotlib.

    Args:
        rows: Shape -> operators, as in an artifact's `cost.json`.
        path: PNG, SVG or PDF, by its ending.
    """
    require("matplotlib", "notebooks")
    from matplotlib.figure import Figure

    try:
        shape = max(rows, key=lambda key: sum(row["cycles"] for row in rows[key]))
        by_measure = {name: _by_layer(rows[shape], name) for name in ("cycles", "kib")}
    except (KeyError, TypeError, ValueError) as error:
        raise ArtifactError("cost.json is not what an export writes", "export again") from error
    figure = Figure(figsize=(11, 7), layout="constrained")
    axes = figure.subplots(2, 1, sharex=True)
    for axis, (measure, table) in zip(axes, by_measure.items(), strict=True):
        places = _places(rows[shape])
        totals = {kind: sum(values.values()) for kind, values in table.items()}
        kinds = sorted(totals, key=lambda kind: -totals[kind])
        bottom = [0.0] * len(places)
        for kind in [*kinds[:_KINDS], "others"]:
            members = kinds[_KINDS:] if kind == "others" else [kind]
            scale = 1024 if measure == "kib" else 1e6
            heights = [sum(table[member].get(place, 0) for member in members) / scale for place in places]
            if any(heights):
                axis.bar(places, heights, bottom=bottom, label=kind)
                bottom = [a + b for a, b in zip(bottom, heights, strict=True)]
        axis.set_ylabel("MB moved" if measure == "kib" else "million cycles")
        axis.legend(fontsize="small", loc="upper left", bbox_to_anchor=(1, 1))
    axes[0].set_title(f"{shape}: cost by layer and kind of operator, by the compiler's count")
    figure.savefig(Path(path))


def draw_search(found: Mapping[str, Any], path: str | os.PathLike[str]) -> None:
    """Draw cost against quality, and what each product in float16 alone gains; needs matplotlib.

    Args:
        found: What a search measured: `build["quantization"]` of a manifest, or the `search.json` of one that
            failed.
        path: PNG, SVG or PDF, by its ending.

    Raises:
        ArtifactError: It is not what a search writes.
    """
    require("matplotlib", "notebooks")
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 5), layout="constrained")
    left, right = figure.subplots(1, 2)
    try:
        for label, style, trials in (
            ("one product in float16, weights rounded to nearest", ".", found["screened"]),
            ("as exported", "o-", found["frontier"]),
            ("chosen", "*", [found["chosen"]] if "chosen" in found else []),
        ):
            worst = [1 - min(trial["quality"]["worst"].values()) for trial in trials]
            size = 14 if style == "*" else None
            left.plot([trial["cost"] for trial in trials], worst, style, label=label, markersize=size)
        table = _gains(found["screened"])
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ArtifactError("that is not what a search writes", "export again") from error
    left.set(xlabel="cycles, of float16's", ylabel="1 - cosine of the worst text", yscale="log")
    left.grid(visible=True, alpha=0.3)
    left.legend(fontsize="small")
    products = list(dict.fromkeys(product for _, product in table))
    layers = sorted({layer for layer, _ in table})
    if table:
        grid = [[table[layer, product] for product in products] for layer in layers]
        figure.colorbar(right.imshow(grid, aspect="auto"), ax=right)
    right.set_xticks(range(len(products)), products, rotation=45, ha="right")
    right.set_yticks(range(len(layers)), map(str, layers))
    right.set(ylabel="layer", title="fall of 1 - cosine (median text) by float16 there")
    figure.savefig(Path(path))


def _gains(screened: Sequence[Mapping[str, Any]]) -> dict[tuple[int, str], float]:
    """(layer, product) -> by how much that product's int8 costs quality."""
    errors = {}
    for trial in screened:
        median = trial["quality"]["median"]
        errors[tuple(trial["float16"])] = 1 - sum(median.values()) / len(median)
    gains = {}
    for kept, error in errors.items():
        if len(kept) == 1:
            layer, _, product = kept[0].partition(".")
            gains[int(layer), product] = errors[()] - error
    return gains


def _place(name: str) -> str:
    found = _LAYER.search(name)
    if found:
        return f"layer {found.group(1)}"
    return "embeddings" if name.startswith(("embeddings", "attention_bias", "input_")) else "head and outputs"


def _places(operators: Sequence[Mapping[str, Any]]) -> list[str]:
    found = {_place(row["name"]) for row in operators}
    layers = sorted((place for place in found if place.startswith("layer")), key=lambda p: int(p.split()[1]))
    return [p for p in ("embeddings", *layers, "head and outputs") if p in found]


def _by_layer(operators: Sequence[Mapping[str, Any]], measure: str) -> dict[str, dict[str, int]]:
    table: dict[str, dict[str, int]] = defaultdict(lambda: defaultdict(int))
    for row in operators:
        table[row["kind"]][_place(row["name"])] += int(row[measure])
    return table
