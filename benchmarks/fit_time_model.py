"""Fit the time model to the published timings and say how well it does; writes `timing/model.json`.

    python benchmarks/fit_time_model.py [--check]

Prints, for every kind of operator, the residuals of the fit and those of each shape when it is left out, then
whole models that were never part of the fit. `--check` compares with the file instead of writing it. To add a
measurement of your own, add a row to `tfbert_npu/rknn/timing/operators.json` and run this again.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
import numpy as np
from rich.console import Console
from rich.table import Table
from scipy.optimize import least_squares

from tfbert_npu.platforms import platform_named
from tfbert_npu.rknn.time_model import KINDS, Kind, Work, predict, work_of_encoder

TIMING = Path(__file__).parent.parent / "tfbert_npu" / "rknn" / "timing"
ACTIVATIONS = ("Gelu", "Swish", "Tanh")
START: dict[Kind, tuple[float, ...]] = {
    "attention": (17, 16, 8e-4, 3e-3),
    "product": (25, 0.8, 11, 0.3),
    "norm": (7, 2e-3),
    "elementwise": (13, 5e-4),
    "copy": (16, 3e-4),
    "transpose": (17, 2e-3),
}
OPERATORS: dict[str, Kind] = {
    "exSDPAttention": "attention",
    "exNorm": "norm",
    **dict.fromkeys(("Add", "Sub", "Mul", "exSwish"), "elementwise"),
    **dict.fromkeys(("Slice", "Split", "Concat", "Gather"), "copy"),
    "Transpose": "transpose",
}
NOT_ENCODERS = ("marian",)
"""Whole models whose error is listed and not part of the error bar: more than their encoder was timed."""


def work_of_row(row: dict[str, Any]) -> Work | None:
    """A row of the table as work; None for one that the model leaves out.

    Raises:
        click.ClickException: The row has an operator or no clock that this script knows.
    """
    name = row["op"]
    if row.get("npu_mhz") is None:
        raise click.ClickException(f"a row of {name} {row['shapes']} lacks npu_mhz; state the clock")
    if name.startswith("Conv"):
        rows, inputs, outputs = row["shapes"]
        batch = row.get("batch", 1)
        return Work("product", (inputs, outputs, rows // batch), batch, activation=name.endswith(ACTIVATIONS))
    if name in ("exMatMul", "exSoftmax13", "Reshape", "InputOperator", "OutputOperator"):
        return None  # unfused attention of one head, and what moves nothing: too few to fit
    if name not in OPERATORS:
        raise click.ClickException(
            f"operator {name} of timing/operators.json is unknown; add it to this script"
        )
    if name == "exNorm" and row["shapes"][0] > 1_000_000:
        return None  # an instance norm in another layout
    return Work(OPERATORS[name], tuple(row["shapes"]))


def fit(kind: Kind, work: Sequence[Work], took: np.ndarray) -> tuple[float, ...]:
    """Coefficients that minimize the relative error, all of them positive."""

    def residuals(logs: np.ndarray) -> np.ndarray:
        coefficients = np.exp(logs)
        return np.array([one.microseconds(coefficients) for one in work]) / took - 1

    best = least_squares(residuals, np.log(START[kind]), loss="soft_l1", f_scale=0.1)
    return tuple(float(f"{value:.6g}") for value in np.exp(best.x))


def left_out(kind: Kind, work: Sequence[Work], took: np.ndarray) -> dict[Work, list[float]]:
    """Relative error of each shape, predicted by a fit without it."""
    errors: dict[Work, list[float]] = {}
    for shape in dict.fromkeys(work):
        kept = [index for index, one in enumerate(work) if one != shape]
        coefficients = fit(kind, [work[index] for index in kept], took[kept])
        own = [float(us) for one, us in zip(work, took, strict=True) if one == shape]
        errors[shape] = [shape.microseconds(coefficients) / us - 1 for us in own]
    return errors


def rms(values: Sequence[float]) -> float:
    """Root of the mean square."""
    return float(np.sqrt(np.mean(np.square(values))))


def fit_all(console: Console) -> dict[str, Any]:
    """Fit every kind, the board classes and the error of whole models."""
    rows = json.loads((TIMING / "operators.json").read_text())
    timed = [
        (row, work)
        for row in rows
        if row["cores"] == 1 and row["soc"] == "rk3588" and (work := work_of_row(row)) is not None
    ]
    model: dict[str, Any] = {"coefficients": {}, "fit_rms": {}, "left_out_rms": {}, "boards": {}}
    table = Table("kind", "rows", "fit rms", "left out rms", "worst left out", title="fast boards, one core")
    for kind in KINDS:
        pairs = [(work, row["us"]) for row, work in timed if work.kind == kind and row["group"] == "fast"]
        work, took = [one for one, _ in pairs], np.array([us for _, us in pairs], float)
        coefficients = fit(kind, work, took)
        errors = left_out(kind, work, took)
        flat = [value for values in errors.values() for value in values]
        model["coefficients"][kind] = coefficients
        model["fit_rms"][kind] = rms([w.microseconds(coefficients) / t - 1 for w, t in pairs])
        model["left_out_rms"][kind] = rms(flat)
        table.add_row(
            kind,
            str(len(work)),
            f"{model['fit_rms'][kind]:.1%}",
            f"{model['left_out_rms'][kind]:.1%}",
            f"{max(flat, key=abs):+.1%}",
        )
    console.print(table)
    model["boards"] = {"fast": dict.fromkeys(KINDS, 1.0), "rk1": _slower(timed, model["coefficients"])}
    model["models_rms"] = 0.0
    model["models_rms"] = whole_models(model, console)
    return model


def _slower(timed: Sequence[tuple[dict[str, Any], Work]], coefficients: dict[str, Any]) -> dict[str, float]:
    """How much longer each kind takes on a Turing RK1: geometric mean, 1.5 where nothing is published."""
    ratios: dict[str, list[float]] = {kind: [] for kind in KINDS}
    for row, work in timed:
        if row["group"] == "rk1":
            ratios[work.kind].append(row["us"] / work.microseconds(coefficients[work.kind]))
    return {
        kind: float(np.exp(np.mean(np.log(values)))) if values else 1.5 for kind, values in ratios.items()
    }


def whole_models(model: dict[str, Any], console: Console) -> float:
    """Predict models that were timed as a whole and were no part of the fit.

    Returns:
        The rms of those of one core and of an encoder's own time, for the error bar.
    """
    table = Table("model", "board", "cores", "measured ms", "predicted ms", "error", title="held out")
    errors = []
    for row in json.loads((TIMING / "models.json").read_text()):
        if "layers" not in row or "int8" in row["model"]:
            continue
        sizes = {"layers": row["layers"], "hidden": row["d"], "heads": row["heads"], "inner": row["ff"]}
        work = work_of_encoder(**sizes, length=row["S"], batch=row.get("batch", 1))
        board = "rk1" if row["group"] == "rk1" else "fast"
        measured = row["ms"] - row.get("other_ms", 0)
        predicted = predict(work, platform_named("rk3588"), board=board, model=model).milliseconds
        error = predicted / measured - 1
        if row["cores"] == 1 and not row["model"].startswith(NOT_ENCODERS):
            errors.append(error)
        table.add_row(
            row["model"],
            row["board"],
            str(row["cores"]),
            f"{measured:.1f}",
            f"{predicted:.1f}",
            f"{error:+.0%}",
        )
    console.print(table)
    console.print(f"rms of the encoders on one core: {rms(errors):.1%}; marian is missed and listed as such")
    return rms(errors)


@click.command(help=__doc__)
@click.option("--check", is_flag=True, help="Compare with the file; exit code 1 if it is another fit.")
def main(check: bool) -> None:
    """Fit, print, write."""
    model = fit_all(Console())
    path = TIMING / "model.json"
    text = json.dumps(model, indent=2) + "\n"
    if not check:
        path.write_text(text)
        return
    for kind, values in json.loads(path.read_text())["coefficients"].items():
        if not np.allclose(values, model["coefficients"][kind], rtol=1e-3):
            raise click.ClickException(f"{path} holds other coefficients of {kind}; run this without --check")


if __name__ == "__main__":
    main()
