"""Fine-tuning from files to a directory: what `tfbert-npu train` runs."""

from __future__ import annotations

import json
import os
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from tfbert_npu._files import replacing
from tfbert_npu.preprocess import BertTokenizer
from tfbert_npu.train.batches import Batches, BatchOptions, balanced_weights
from tfbert_npu.train.data_options import DataOptions, TaskName
from tfbert_npu.train.distribution import strategy_scope
from tfbert_npu.train.loop import train
from tfbert_npu.train.lora import add_lora, merge_lora
from tfbert_npu.train.options import Strategy, TrainOptions
from tfbert_npu.train.starting_point import head_of, tokenizer_of
from tfbert_npu.train.tasks import Task, make_task


@dataclass(frozen=True)
class FineTuned:
    """What a fine-tuning gave: the logs of each epoch, the best of them, and where the model is."""

    directory: Path
    history: list[dict[str, float]]
    best: dict[str, float]


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
) -> FineTuned:
    """Fine-tune a checkpoint on a task and leave the best model in `out`.

    `out` then holds `config.json`, `model.safetensors`, `vocab.txt`, `tokenizer_config.json`,
    `history.json` and `results.json`. A run that was killed goes on where it stopped when it is started
    again with the same arguments.

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

    Raises:
        ValueError: The data does not fit the task; the message says file, line and remedy.
        CheckpointError: The model is no BERT.
    """
    batching, options = batching or BatchOptions(), options or TrainOptions()
    scope, replicas = strategy_scope(strategy)
    if replicas > 1:
        if batching.batch_size % replicas:
            raise ValueError(
                f"batch_size {batching.batch_size} cannot be divided over {replicas} replicas; choose a "
                "multiple of them"
            )
        batching = replace(batching, drop_remainder=True)
    tokenizer = tokenizer_of(model, new=new, revision=revision)
    task = make_task(task_name, data, tokenizer, batching.seq_length)
    train_examples, dev_examples = _split(task, data)
    labels = task.set_labels(train_examples())
    if progress and task.note:
        print(task.note, file=sys.stderr)  # noqa: T201
    weights = _class_weights(task, train_examples(), data)
    batches = Batches(
        lambda: (feature for example in train_examples() for feature in task.features(example)),
        batching,
        pad_id=tokenizer.vocabulary.pad_id,
        cache=data.cache,
        class_weights=weights,
    )
    with scope:
        kwargs: dict[str, Any] = {} if labels is None else {"labels": labels}
        if task.problem_type is not None:
            kwargs["problem_type"] = task.problem_type
        head = head_of(
            task.head, model, tokenizer, new=new, revision=revision, dtype=options.precision, **kwargs
        )
        if head.config.max_position_embeddings < batching.seq_length:
            raise ValueError(
                f"seq_length is {batching.seq_length} but {model} has positions for "
                f"{head.config.max_position_embeddings}"
            )
        if lora_rank is not None:
            add_lora(head, lora_rank, lora_alpha)

    def save() -> None:
        (merge_lora(head) if lora_rank is not None else head).save_pretrained(out)
        save_tokenizer(tokenizer, out, head.config.model_type, head.config.max_position_embeddings)

    history = train(
        head,
        batches,
        options,
        out,
        evaluate=(lambda: task.evaluate(head, dev_examples)) if dev_examples else None,
        save=save,
        monitor=task.monitor if dev_examples else None,
        progress=progress,
    )
    best = history[-1]
    if dev_examples:
        best = max(history, key=lambda logs: np.nan_to_num(logs[f"dev_{task.monitor}"], nan=-np.inf))
    with replacing(out / "results.json") as temporary:
        temporary.write_text(json.dumps(best, indent=1) + "\n", encoding="utf-8")
    return FineTuned(out, history, best)


def _split(task: Task[Any], data: DataOptions) -> tuple[Any, list[Any]]:
    """A function that gives the training examples again, and the list of those held out."""
    if data.dev is not None or data.dev_fraction == 0:
        dev = [] if data.dev is None else list(task.read(data.dev))
        if data.dev is not None and not dev:
            raise ValueError(f"{data.dev} is empty: it holds not a single example to evaluate on")
        return lambda: task.read(data.train), dev
    examples = list(task.read(data.train))
    kept, held_out = hold_out(examples, [task.group_of(e) for e in examples], data.dev_fraction, data.seed)
    return lambda: kept, held_out


def hold_out(
    examples: Sequence[Any], groups: Sequence[str | None], fraction: float, seed: int
) -> tuple[list[Any], list[Any]]:
    """Part examples at random, keeping those of a group on one side; at least one group is held out."""
    names = [str(index) if group is None else f"group {group}" for index, group in enumerate(groups)]
    distinct = list(dict.fromkeys(names))
    if len(distinct) < 2:
        raise ValueError(
            f"{len(distinct)} example or article cannot be split into training and held-out data; "
            "give held-out data of its own, or hold out none"
        )
    order = np.random.default_rng(seed).permutation(len(distinct))
    number = min(max(1, round(fraction * len(distinct))), len(distinct) - 1)
    held = {distinct[index] for index in order[:number]}
    kept = [example for example, name in zip(examples, names, strict=True) if name not in held]
    return kept, [example for example, name in zip(examples, names, strict=True) if name in held]


def _class_weights(task: Task[Any], examples: Iterable[Any], data: DataOptions) -> list[float] | None:
    if data.class_weights == "none":
        return None
    if not task.label2id or data.multi_label:
        raise ValueError("class weights need a task in which a text, or a word, has one of several labels")
    counts = Counter(_labels(task, examples))
    return balanced_weights([counts[name] for name in task.label2id])


def _labels(task: Task[Any], examples: Iterable[Any]) -> Iterator[str]:
    for example in examples:
        yield from example.tags if hasattr(example, "tags") else (str(example.label),)


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
