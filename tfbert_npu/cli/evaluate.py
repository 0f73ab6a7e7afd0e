"""`tfbert-npu evaluate`: score models, precisions and backends side by side on labeled data."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any, get_args

import click
from rich.console import Console
from rich.table import Table

from tfbert_npu.cli import asking
from tfbert_npu.tasks.evaluation import (
    Evaluation,
    EvaluationTask,
    difference,
    read_examples,
    read_predictions,
    score,
    write_predictions,
)
from tfbert_npu.tasks.evaluation import (
    evaluate as score_model,
)
from tfbert_npu.tasks.loading import BACKENDS, Backend, load
from tfbert_npu.tasks.report import report
from tfbert_npu.tasks.schemes import SchemeName


@click.command()
@click.argument("task", type=click.Choice(get_args(EvaluationTask)))
@click.argument("models", nargs=-1, metavar="[MODEL]...")
@click.option(
    "--data",
    type=click.Path(path_type=Path),
    help="CSV, TSV, JSON lines, Parquet, a directory of Hugging Face datasets, CoNLL, SQuAD.",
)
@click.option(
    "--backend", "backends", multiple=True, type=click.Choice(BACKENDS),
    help="Where a MODEL runs; several are compared. By default auto.",
)  # fmt: skip
@click.option(
    "--score", "scored", multiple=True, type=click.Path(path_type=Path, dir_okay=False),
    help="Predictions made elsewhere, on a board for instance, in place of a MODEL.",
)  # fmt: skip
@click.option(
    "--predictions",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write JSON lines; of one MODEL only.",
)
@click.option(
    "--report",
    "report_folder",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="DIR",
    help="Write figures for each class and a confusion matrix, as CSV and a picture; of one row only.",
)
@click.option("--overwrite", is_flag=True, help="Replace the file of --predictions, and what is in --report.")
@click.option("--text-column", default="text", show_default=True, help="Column of the text.")
@click.option("--pair-column", help="Column of the second text.")
@click.option("--label-column", default="label", show_default=True, help="Column of the label.")
@click.option("--delimiter", help="Separates the columns of a CSV file.")
@click.option("--multi-label", is_flag=True, help="A text may have several labels, separated by |.")
@click.option("--word-column", type=int, help="ner: column of the word, from 0.")
@click.option("--tag-column", type=int, help="ner: column of the label, from 0.")
@click.option("--scheme", type=click.Choice(get_args(SchemeName)), help="ner: how labels mark entities.")
@click.option("--no-answer", is_flag=True, help="qa: questions may have no answer.")
@click.option("--seq-length", type=click.IntRange(min=8), help="Tokens of a row; 128, or 384 for qa.")
@asking.batch_size
@asking.revision
@asking.file
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def evaluate(
    task: EvaluationTask,
    models: tuple[str, ...],
    data: Path | None,
    backends: tuple[Backend, ...],
    scored: tuple[Path, ...],
    predictions: Path | None,
    report_folder: Path | None,
    overwrite: bool,
    scheme: SchemeName | None,
    no_answer: bool,
    seq_length: int | None,
    batch_size: int,
    revision: str | None,
    file: str | None,
    as_json: bool,
    **columns: Any,
) -> None:
    """Score each MODEL, a directory, hub repository or artifact, on --data.

    The interval is a 95 % bootstrap's; the difference to the first row is paired, on the same examples.

    Example: tfbert-npu evaluate classify out/mine --data test.csv --predictions mine.jsonl
    """
    runs = [(model, backend) for model in models for backend in (backends or ("auto",))]
    if not runs and not scored:
        raise click.UsageError("give a MODEL, or predictions with --score")
    if runs and data is None:
        raise click.UsageError("give the data that MODEL is scored on with --data")
    if predictions is not None and len(runs) != 1:
        raise click.UsageError("--predictions is for one MODEL on one backend")
    if predictions is not None and predictions.is_file() and not overwrite:
        raise ValueError(f"{predictions} exists already; give another file, or --overwrite")
    if report_folder is not None:
        if len(runs) + len(scored) != 1:
            raise click.UsageError("--report is for one MODEL on one backend, or one --score")
        if not overwrite and report_folder.is_dir() and any(report_folder.iterdir()):
            raise ValueError(f"{report_folder} is not empty; give another directory, or --overwrite")
    examples = [] if data is None else read_examples(task, data, **columns)
    rows: list[tuple[str, str, Evaluation]] = []
    labels: tuple[str, ...] = ()
    for model, backend in runs:
        with load(model, task, backend, revision=revision, file=file) as opened:
            if rows and task in ("classify", "pair", "ner") and set(opened.labels) != set(labels):
                raise ValueError(
                    f"{model} has other labels than {rows[0][0]}; compare models of one label set"
                )
            labels = opened.labels
            found = score_model(
                task, opened, examples, scheme=scheme, seq_length=seq_length, batch_size=batch_size,
                no_answer=no_answer,
            )  # fmt: skip
            rows.append((model, opened.runs_on, found))
    for path in scored:
        made = read_predictions(path)
        if examples and len(made) != len(examples):
            raise ValueError(
                f"{path} has {len(made)} rows but {data} {len(examples)}; score predictions of this data"
            )
        rows.append((str(path), "-", score(task, made, scheme=scheme)))
    if predictions is not None:
        write_predictions(predictions, rows[0][2].predictions)
    if report_folder is not None:
        made_report = report(task, rows[0][2].predictions, scheme)
        click.echo(f"wrote {', '.join(map(str, made_report.write(report_folder)))}", err=True)
    _print(task, rows, as_json)


def _print(task: EvaluationTask, rows: list[tuple[str, str, Evaluation]], as_json: bool) -> None:
    first = rows[0][2]
    changes = [difference(task, first.predictions, found.predictions) for _, _, found in rows[1:]]
    if as_json:
        results: list[dict[str, Any]] = []
        for index, (model, backend, found) in enumerate(rows):
            entry = {"model": model, "backend": backend, **asdict(found), "examples": len(found.predictions)}
            entry.pop("predictions")
            if index:
                change, interval = changes[index - 1]
                entry["difference"] = {"value": change, "interval": interval}
            results.append(entry)
        click.echo(json.dumps(results))
        return
    table = Table("model", "backend", *first.metrics, f"{first.main}, 95 %", "to the first")
    for index, (model, backend, found) in enumerate(rows):
        shown = "" if not index else _shown(*changes[index - 1])
        low, high = found.interval
        values = (f"{value:.4f}" for value in found.metrics.values())
        table.add_row(model, backend, *values, f"{low:.4f} to {high:.4f}", shown)
    Console().print(table)
    click.echo(f"{len(first.predictions)} examples")


def _shown(change: float, interval: tuple[float, float]) -> str:
    return f"{change:+.4f} ({interval[0]:+.4f} to {interval[1]:+.4f})"
