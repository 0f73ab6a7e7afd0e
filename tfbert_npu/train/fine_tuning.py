"""Fine-tuning from files to a directory: what `tfbert-npu train` runs."""

from __future__ import annotations

import hashlib
import json
import os
import sys
from collections import Counter
from collections.abc import Collection
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from tfbert_npu._files import replacing
from tfbert_npu.preprocess import BertTokenizer
from tfbert_npu.train.advice import LOOKED_AT, Choosable, cut_texts, few, options_for, text_lengths
from tfbert_npu.train.batches import Batches, BatchOptions, balanced_weights
from tfbert_npu.train.data_options import DataOptions, TaskName
from tfbert_npu.train.data_report import show_data
from tfbert_npu.train.distribution import strategy_scope
from tfbert_npu.train.kinds import make_task
from tfbert_npu.train.loop import train
from tfbert_npu.train.lora import add_lora, merge_lora
from tfbert_npu.train.options import Strategy, TrainOptions
from tfbert_npu.train.out_directory import SPLIT, check_out
from tfbert_npu.train.outcome import FineTuned, finish, how_chosen
from tfbert_npu.train.parts import check_known, read_parts
from tfbert_npu.train.starting_point import freeze, head_of, origin_of_weights, tokenizer_of
from tfbert_npu.train.tasks import Task


def fine_tune(
    task_name: TaskName,
    model: str | os.PathLike[str],
    data: DataOptions,
    out: Path,
    *,
    new: bool = False,
    batching: BatchOptions | None = None,
    options: TrainOptions | None = None,
    strategy: Strategy = "none",
    lora_rank: int | None = None,
    lora_alpha: float | None = None,
    revision: str | None = None,
    progress: bool = True,
    overwrite: bool = False,
    choose: Collection[Choosable] = (),
) -> FineTuned:
    """Fine-tune a checkpoint on a task and leave the best model in `out`.

    `out` then holds `config.json`, `model.safetensors`, `vocab.txt`, `tokenizer_config.json`,
    `history.json`, `losses.csv`, `results.json`, with matplotlib `learning_curves.png` and, where data was
    held out, `split.json` with the numbers of its rows.
    A run that was killed goes on where it stopped when it is started again with the same arguments.

    Args:
        task_name: What to learn.
        model: A directory or a hub repository; with `new`, a directory with `config.json` and a vocabulary.
        data: See `DataOptions`.
        out: Directory of the result.
        new: Start from new weights, to see what a pre-training is worth.
        batching: See `BatchOptions`.
        options: See `TrainOptions`.
        strategy: How to spread the work over devices and machines.
        lora_rank: Train low-rank updates of query and value (and the head) alone; merged in the result.
        lora_alpha: Their scale; by default twice the rank.
        revision: Branch, tag or commit of the repository.
        progress: Show progress on stderr.
        overwrite: Begin again, and replace what is in `out`.
        choose: Options to choose by the amount of data, in place of those given; see `advice.options_for`.

    Raises:
        OutDirectoryError: `out` holds something else than a training to go on with.
        ValueError: The data does not fit the task; the message says file, line and remedy.
        CheckpointError: The model is no BERT.
    """
    batching, options = batching or BatchOptions(), options or TrainOptions()
    check_out(out, overwrite)
    scope, replicas = strategy_scope(strategy)
    tokenizer = tokenizer_of(model, new=new, revision=revision)
    task = make_task(task_name, data, tokenizer, batching.seq_length)
    task.begin(model, new=new, revision=revision)
    parts = read_parts(task, data)
    labels = task.set_labels(parts.labels)
    for path, examples in ((data.dev, parts.dev), (data.test, parts.test)):
        check_known(task, path or data.train, examples)
    with scope:
        kwargs = task.head_arguments(options)
        head = head_of(
            task.head,
            model,
            tokenizer,
            new=new,
            revision=revision,
            dtype=options.precision,
            **kwargs,
            **({} if labels is None else {"labels": labels}),
        )
        if head.config.max_position_embeddings < batching.seq_length:
            raise ValueError(
                f"seq_length is {batching.seq_length} but {model} has positions for "
                f"{head.config.max_position_embeddings}"
            )
        origin = {
            "task": task_name,
            "held-out data": hashlib.sha256(repr(parts.dev).encode("utf-8", "surrogatepass")).hexdigest(),
            "lora": [lora_rank, lora_alpha],
            **origin_of_weights(head, tokenizer, new=new),
        }
        if lora_rank is not None:
            add_lora(head, lora_rank, lora_alpha)
        freeze(head, options.freeze)
    chosen = {
        name: value
        for name, value in options_for(parts.rows, head.config.hidden_size).items()
        if name in choose
    }
    batching = replace(batching, batch_size=chosen.pop("batch_size", batching.batch_size))
    options = replace(options, **chosen)
    task.check_batch(min(batching.batch_size, parts.rows))
    if replicas > 1:
        if batching.batch_size % replicas:
            raise ValueError(
                f"batch_size {batching.batch_size} cannot be divided over {replicas} replicas; choose a "
                "multiple of them"
            )
        batching = replace(batching, drop_remainder=True)
    batches = Batches(
        lambda: (feature for example in parts.train() for feature in task.features(example)),
        batching,
        pad_id=tokenizer.vocabulary.pad_id,
        cache=data.cache,
        class_weights=_class_weights(task, parts.labels, data),
    )
    updates = len(batches) * options.epochs // options.accumulate
    lengths = text_lengths(tokenizer, parts.train())
    if progress:
        _say(task.note)
        _say(
            f"{parts.rows} examples to train on, {len(parts.dev)} held out, {len(parts.test)} to test; "
            f"{updates} updates: {options.epochs} epochs of {len(batches)} batches of {batching.batch_size}, "
            f"learning rate {options.learning_rate:g}"
            + (f" ({', '.join(sorted(choose))} by the amount of data)" if choose else "")
        )
        held = {"held out": parts.dev, "test": parts.test}
        counts = {
            name: Counter(label for example in examples for label in task.names_of(example))
            for name, examples in held.items()
            if examples
        }
        # Windows of long texts are not cut: their rows say how much of --seq-length is used.
        windows = [feature.length for feature in islice(batches.features_of(0), LOOKED_AT)]
        show_data({"training": parts.labels, **counts}, lengths or windows, batching.seq_length)
    classes = parts.labels if task_name in ("classify", "pair") else {}
    for warning in few(updates, classes) + cut_texts(lengths, batching.seq_length):
        _say(f"warning: {warning}")

    def save() -> None:
        (merge_lora(head) if lora_rank is not None else head).save_pretrained(out)
        save_tokenizer(tokenizer, out, head.config.model_type, head.config.max_position_embeddings)
        task.save_beside(out, head.config.hidden_size)
        if parts.split:
            split = {**parts.split, "seed": data.seed, "dev_fraction": data.dev_fraction}
            with replacing(out / SPLIT) as temporary:
                temporary.write_text(json.dumps(split) + "\n", encoding="utf-8")

    history = train(
        head,
        batches,
        options,
        out,
        evaluate=(lambda: task.evaluate(head, parts.dev)) if parts.dev else None,
        save=save,
        monitor=task.monitor if parts.dev else None,
        progress=progress,
        origin=origin,
    )
    best = history[-1]
    if parts.dev:
        best = max(history, key=lambda logs: _rank(logs, f"dev_{task.monitor}"))
    if parts.test and (out / "config.json").is_file():  # one worker of several writes the model
        scores = task.evaluate(task.head.from_pretrained(out, **kwargs), parts.test)
        best = {**best, **{f"test_{name}": value for name, value in scores.items()}}
    monitor = f"dev_{task.monitor}" if parts.dev else None
    said = how_chosen(best, len(history), monitor, parts.held_out_from(data), len(parts.test))
    return finish(out, history, best, monitor, said)


def _rank(logs: dict[str, float], monitor: str) -> tuple[float, float]:
    """How good an epoch was, as `KeepBest` sees it."""
    return float(np.nan_to_num(logs[monitor], nan=-np.inf)), -logs.get("dev_loss", 0.0)


def _say(text: str) -> None:
    if text:
        print(text, file=sys.stderr)  # noqa: T201


def _class_weights(task: Task[Any], counts: Counter[str], data: DataOptions) -> list[float] | None:
    if data.class_weights == "none":
        return None
    if not counts or data.multi_label:
        raise ValueError("class weights need a task in which a text, or a word, has one of several labels")
    return balanced_weights([counts[name] for name in task.label2id])


def save_tokenizer(tokenizer: BertTokenizer, directory: Path, model_type: str, positions: int) -> None:
    """Write `vocab.txt` and `tokenizer_config.json`, which transformers' AutoTokenizer reads."""
    options = tokenizer.options
    config = {
        "tokenizer_class": "DistilBertTokenizer" if model_type == "distilbert" else "BertTokenizer",
        "do_lower_case": options.lower_case,
        "strip_accents": options.strip_accents,
        "tokenize_chinese_chars": options.tokenize_chinese_chars,
        "model_max_length": positions,
    }
    with replacing(directory / "vocab.txt") as temporary:
        temporary.write_text(tokenizer.vocabulary.to_text(), encoding="utf-8", newline="\n")
    with replacing(directory / "tokenizer_config.json") as temporary:
        temporary.write_text(json.dumps(config, indent=1) + "\n", encoding="utf-8")
