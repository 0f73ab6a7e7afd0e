"""`tfbert-npu train`: fine-tune a model on a task."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any, Literal, get_args

import click

from tfbert_npu._failed_writes import explaining_failed_write
from tfbert_npu.cli.stopping import exit_code
from tfbert_npu.errors import require
from tfbert_npu.tasks.schemes import SchemeName
from tfbert_npu.train.advice import Choosable
from tfbert_npu.train.data_options import ClassWeights, DataOptions, TaskName
from tfbert_npu.train.options import Precision, Strategy, TrainOptions

_LENGTHS: dict[str, int] = {"qa": 384}
_DATA = (
    "dev_fraction", "test_fraction", "text_column", "pair_column", "label_column", "choice_columns",
    "multi_label", "class_weights", "no_answer", "stride", "scheme",
    "delimiter", "word_column", "tag_column",
)  # fmt: skip
_TEXT = ("next_sentence", "short_seq_prob", "mask_rate", "whole_words")


@click.command()
@click.argument("model")
@click.option("--task", required=True, type=click.Choice([*get_args(TaskName), "mlm"]), help="What to learn.")
@click.option(
    "--train",
    "train_file",
    required=True,
    type=click.Path(path_type=Path),
    help="CSV, TSV, JSON lines, Parquet or a directory of Hugging Face datasets; ner: CoNLL as well; qa: "
    "SQuAD JSON; choice: also COPA's XML; similarity: columns text_a, text_b and perhaps score, or anchor, "
    "positive and perhaps negative; mlm: plain text, a sentence per line, an empty line between documents.",
)
@click.option("--dev", "dev_file", type=click.Path(path_type=Path), help="Held-out data.")
@click.option(
    "--test",
    "test_file",
    type=click.Path(path_type=Path),
    help="Data to score the best epoch's model on, once: the figure to report.",
)
@click.option(
    "--dev-fraction",
    default=0.1,
    show_default=True,
    type=click.FloatRange(0, 1, max_open=True),
    help="Without --dev: part of the training data to hold out, every class in its share.",
)
@click.option(
    "--test-fraction",
    default=0.0,
    show_default=True,
    type=click.FloatRange(0, 1, max_open=True),
    help="Without --test: part of the training data to hold out for the figure to report.",
)
@click.option(
    "--out", required=True, type=click.Path(path_type=Path, file_okay=False), help="Directory of the result."
)
@click.option("--overwrite", is_flag=True, help="Begin again, and replace what is in --out.")
@click.option("--text-column", default="text", show_default=True, help="Column of the text.")
@click.option("--pair-column", help="Column of the second text.")
@click.option("--label-column", default="label", show_default=True, help="Column of the label.")
@click.option("--choice-column", "choice_columns", multiple=True, help="Column of a choice; once for each.")
@click.option("--multi-label", is_flag=True, help="A text may have several labels, separated by |.")
@click.option(
    "--labels",
    "labels_file",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Label names in the order of their indices: one per line, or a JSON list.",
)
@click.option(
    "--delimiter",
    callback=lambda context, option, value: "\t" if value in ("tab", "\\t") else value,
    help="Separates the columns of a CSV file, such as ; or tab; by default found out from the header.",
)
@click.option("--word-column", type=int, help="ner: column of the word, from 0; -1 is the last.")
@click.option("--tag-column", type=int, help="ner: column of the label, from 0; -1 is the last.")
@click.option(
    "--scheme",
    type=click.Choice(get_args(SchemeName)),
    help="ner: how labels mark entities; by default recognized from their names.",
)
@click.option(
    "--class-weights",
    type=click.Choice(get_args(ClassWeights)),
    default="none",
    show_default=True,
    help="balanced: every class has the same part in the loss.",
)
@click.option("--no-answer", is_flag=True, help="qa: questions may have no answer (SQuAD 2.0).")
@click.option("--stride", default=128, show_default=True, help="qa: overlap of windows in tokens.")
@click.option("--new", is_flag=True, help="New weights; MODEL holds config.json and vocab.txt.")
@click.option("--next-sentence", is_flag=True, help="mlm: learn next sentence prediction as well.")
@click.option(
    "--short-seq-prob",
    type=float,
    default=0.1,
    show_default=True,
    help="--next-sentence: part of shorter pairs.",
)
@click.option("--mask-rate", type=float, default=0.15, show_default=True, help="mlm: part of the pieces.")
@click.option("--whole-words", is_flag=True, help="mlm: mask all pieces of a word or none.")
@click.option("--seq-length", type=click.IntRange(min=8), help="Tokens of a row; 128, or 384 for qa.")
@click.option(
    "--pad", type=click.Choice(["batch", "full"]), default="batch", show_default=True,
    help="Pad to a batch's longest row, or always to --seq-length.",
)  # fmt: skip
@click.option("--batch-size", type=click.IntRange(min=1), help="By default 32; 16 for small data.")
@click.option("--epochs", type=click.IntRange(min=1), help="By default 3; up to 10 for small data.")
@click.option("--learning-rate", type=float, help="By default 5e-5; 2e-4 for small data and narrow models.")
@click.option("--warmup", type=float, default=0.1, show_default=True, help="Part of the steps.")
@click.option("--weight-decay", type=float, default=0.01, show_default=True, help="AdamW's.")
@click.option("--layer-decay", type=float, default=1.0, show_default=True, help="Per layer, downwards.")
@click.option("--clip-norm", type=float, default=1.0, show_default=True, help="Of all gradients together.")
@click.option("--accumulate", type=click.IntRange(min=1), default=1, show_default=True, help="Batches.")
@click.option("--patience", type=click.IntRange(min=1), help="Epochs without a better result.")
@click.option("--save-every", type=click.IntRange(min=0), default=0, help="Batches between saved states.")
@click.option("--lora-rank", type=click.IntRange(min=1), help="Train low-rank updates alone.")
@click.option("--lora-alpha", type=float, help="Their scale; by default twice the rank.")
@click.option(
    "--freeze",
    default="",
    callback=lambda context, option, value: tuple(name.strip() for name in value.split(",") if name.strip()),
    help="Parts not to train, separated by commas: embeddings, layer_0, ..., pooler, encoder.",
)
@click.option(
    "--dimensions",
    default="",
    callback=lambda context, option, value: lengths(value),
    help="similarity: lengths to which vectors may be cut (Matryoshka), such as 384,128,64.",
)
@click.option(
    "--precision",
    type=click.Choice(get_args(Precision)),
    default="float32",
    show_default=True,
    help="Of the layers' arithmetic; weights stay float32.",
)
@click.option(
    "--jit-compile",
    is_flag=True,
    help="Compile with XLA; goes with --pad full, and gives up bit-equal resumption.",
)
@click.option(
    "--strategy",
    type=click.Choice(get_args(Strategy)),
    default="none",
    show_default=True,
    help="tf.distribute's: mirrored on the devices of one machine, multi_worker on several (TF_CONFIG).",
)
@click.option("--tensorboard", is_flag=True, help="Write event files to OUT/tensorboard.")
@click.option("--cache/--no-cache", default=True, help="Keep word ids in memory.")
@click.option(
    "--seed", default=0, show_default=True, help="Of new weights, dropout and the order of the data."
)
@click.option("--revision", help="Branch, tag or commit of a hub repository.")
@click.option("--progress/--no-progress", default=True, help="Show progress on standard error.")
@click.option("--json", "as_json", is_flag=True, help="Print the best epoch's results as JSON.")
def train(
    model: str,
    task: Literal[TaskName, "mlm"],
    train_file: Path,
    dev_file: Path | None,
    test_file: Path | None,
    out: Path,
    overwrite: bool,
    labels_file: Path | None,
    pad: str,
    seed: int,
    cache: bool,
    lora_rank: int | None,
    lora_alpha: float | None,
    strategy: Strategy,
    revision: str | None,
    progress: bool,
    as_json: bool,
    **settings: Any,
) -> None:
    """Fine-tune MODEL, a directory or a hub repository, and leave the best epoch's model in --out.

    A run that was killed goes on where it stopped when the same command is given again.

    Example: tfbert-npu train google-bert/bert-base-uncased --task classify --train train.csv --out out/mine
    """
    for module in ("tensorflow", "keras"):
        require(module, "tf")
    import keras
    import tensorflow as tf

    from tfbert_npu.train.batches import BatchOptions
    from tfbert_npu.train.fine_tuning import fine_tune
    from tfbert_npu.train.pre_training import pre_train
    from tfbert_npu.train.raw_text import TextOptions

    # Dropout, new weights and the order of the data follow from the seed; so a resumed run ends with the
    # weights that an uninterrupted one has.
    keras.utils.set_random_seed(seed)
    if not settings["jit_compile"]:  # Keras compiles no model with XLA where operations must be deterministic
        tf.config.experimental.enable_op_determinism()
    size = settings.pop("batch_size")
    wanted: tuple[Choosable, ...] = get_args(Choosable)
    choose = [name for name in wanted if (size if name == "batch_size" else settings[name]) is None]
    for name in choose:
        settings.pop(name, None)
    length = settings.pop("seq_length") or _LENGTHS.get(task, 128)
    batching = BatchOptions(
        batch_size=size or 32,
        seq_length=length,
        pad_to=8 if pad == "batch" else None,
        seed=seed,
    )
    text = {name: settings.pop(name) for name in _TEXT}
    new = settings.pop("new")
    data = {name: settings.pop(name) for name in _DATA}
    common: dict[str, Any] = {
        "batching": batching,
        "options": TrainOptions(**settings),
        "strategy": strategy,
        "revision": revision,
        "progress": progress,
        "overwrite": overwrite,
    }
    try:
        with explaining_failed_write(out):
            if task == "mlm":
                texts = TextOptions(train_file, dev_file, cache=cache, seed=seed, **text)
                result = pre_train(model, texts, out, new=new, **common)
            else:
                if labels_file is not None:
                    data["labels"] = read_labels(labels_file)
                result = fine_tune(
                    task,
                    model,
                    DataOptions(train_file, dev_file, test_file, cache=cache, seed=seed, **data),
                    out,
                    new=new,
                    lora_rank=lora_rank,
                    lora_alpha=lora_alpha,
                    choose=choose,
                    **common,
                )
    except KeyboardInterrupt as error:
        click.echo(
            f"stopped; the same command goes on from the last state saved in {out}, --overwrite begins again",
            err=True,
        )
        sys.exit(exit_code(error))
    if as_json:
        click.echo(json.dumps(result.best))
    else:
        click.echo(f"the best model is in {out}: {_shown(result.best)}")
        click.echo(result.chosen)


def lengths(value: str) -> tuple[int, ...]:
    """Numbers between commas.

    Raises:
        click.BadParameter: One is none.
    """
    try:
        return tuple(int(one) for one in value.split(",") if one.strip())
    except ValueError as error:
        raise click.BadParameter(f"{value!r} must be lengths between commas, such as 384,128") from error


def read_labels(path: Path) -> tuple[str, ...]:
    """Label names from a file: a JSON list, or one per line.

    Raises:
        ValueError: There is none, or the JSON is no list of names.
    """
    text = path.read_text(encoding="utf-8-sig")
    if path.suffix == ".json":
        try:
            names = json.loads(text)
        except json.JSONDecodeError as error:
            raise ValueError(f"{path} is not JSON ({error.msg})") from error
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise ValueError(f"{path} must hold a list of label names")
    else:
        names = [line.strip() for line in text.splitlines() if line.strip()]
    if not names:
        raise ValueError(f"{path} names no label")
    return tuple(names)


def _shown(results: dict[str, float]) -> str:
    """The figures in one line, each with its 95 % interval where it has one."""
    return ", ".join(
        f"{name} {value:g}" if name == "epoch" else f"{name} {value:.4f}{_interval(name, results)}"
        for name, value in results.items()
        if not name.endswith(("_low", "_high"))
    )


def _interval(name: str, results: dict[str, float]) -> str:
    low, high = (results.get(f"{name}_{end}") for end in ("low", "high"))
    return "" if low is None or high is None else f" (95 %: {low:.4f} to {high:.4f})"
