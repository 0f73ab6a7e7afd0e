"""Pre-training on raw text: masked words, and next sentences (Devlin et al. 2018, section 3.1)."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from tfbert_npu.errors import require
from tfbert_npu.models.heads import BertForMaskedLM, BertForPreTraining
from tfbert_npu.preprocess import BertTokenizer
from tfbert_npu.tasks.metrics import perplexity
from tfbert_npu.tasks.running import call
from tfbert_npu.train.batches import Batches, BatchOptions
from tfbert_npu.train.distribution import strategy_scope
from tfbert_npu.train.features import IGNORED
from tfbert_npu.train.fine_tuning import save_tokenizer
from tfbert_npu.train.loop import dataset, train
from tfbert_npu.train.options import Strategy, TrainOptions
from tfbert_npu.train.out_directory import check_out
from tfbert_npu.train.outcome import FineTuned, finish, how_chosen
from tfbert_npu.train.raw_text import TextOptions, text_batches
from tfbert_npu.train.starting_point import freeze, head_of, origin_of_weights, tokenizer_of


def masking(
    tokenizer: BertTokenizer, text: TextOptions, seq_length: int, seed: int
) -> Callable[[Any, Any, Any], tuple[Any, Any]]:
    """A transform for `loop.train`: masks each batch in the graph, differently in every epoch.

    It gives the inputs with `masked_lm_positions`, and the labels of `BertForMaskedLM`, or of
    `BertForPreTraining` if `text.next_sentence`.
    """
    tf = require("tensorflow", "tf")
    from tfbert_npu.preprocess.masking import TokenMasker

    masker = TokenMasker(
        tokenizer.vocabulary,
        mask_rate=text.mask_rate,
        max_predictions=max(1, round(text.mask_rate * seq_length)),
        whole_words=text.whole_words,
    )

    def transform(number: Any, inputs: Any, label: Any) -> tuple[Any, Any]:
        masked = masker(inputs, tf.stack([number[0] + 1_000_003 * seed, number[1]]))
        names = ("input_word_ids", "input_mask", "input_type_ids", "masked_lm_positions")
        words = tf.where(masked["masked_lm_weights"] > 0, masked["masked_lm_ids"], IGNORED)
        labels = {"mlm_logits": words, "nsp_logits": label} if text.next_sentence else words
        return {name: masked[name] for name in names}, labels

    return transform


def evaluate_masked(
    model: Any, batches: Batches, transform: Callable[..., Any], steps: int
) -> dict[str, float]:
    """Perplexity and accuracy at masked pieces (and of next sentences) over the first `steps` batches."""
    loss = right = count = next_right = next_count = 0.0
    for inputs, labels in dataset(batches, transform=transform).take(steps):
        outputs = call(model, {name: np.asarray(array) for name, array in inputs.items()})
        logits = outputs["mlm_logits"] if "mlm_logits" in outputs else outputs["logits"]
        words = np.asarray(labels["mlm_logits"] if isinstance(labels, dict) else labels)
        known = words != IGNORED
        scores = np.asarray(logits, np.float64)[known]
        wanted = words[known]
        top = scores.max(-1, keepdims=True)
        log_sums = top[:, 0] + np.log(np.exp(scores - top).sum(-1))
        loss += float((log_sums - scores[np.arange(len(wanted)), wanted]).sum())
        right += float((scores.argmax(-1) == wanted).sum())
        count += len(wanted)
        if isinstance(labels, dict):
            next_wanted = np.asarray(labels["nsp_logits"])
            next_right += float((np.asarray(outputs["nsp_logits"]).argmax(-1) == next_wanted).sum())
            next_count += len(next_wanted)
    results = {"perplexity": perplexity(loss / max(count, 1)), "mlm_accuracy": right / max(count, 1)}
    return {**results, "nsp_accuracy": next_right / next_count} if next_count else results


def pre_train(
    model: str | os.PathLike[str],
    text: TextOptions,
    out: Path,
    *,
    new: bool = False,
    batching: BatchOptions | None = None,
    options: TrainOptions | None = None,
    strategy: Strategy = "none",
    revision: str | None = None,
    progress: bool = True,
    overwrite: bool = False,
) -> FineTuned:
    """Train a language model on text, from a checkpoint or from new weights, and leave the best in `out`.

    Args:
        model: A directory or a hub repository; with `new`, a directory with `config.json` and a vocabulary.
        text: See `TextOptions`.
        out: Directory of the result; see `fine_tuning.fine_tune`.
        new: Start from new weights.
        batching: See `BatchOptions`.
        options: See `TrainOptions`.
        strategy: How to spread the work over devices and machines.
        revision: Branch, tag or commit of the repository.
        progress: Show progress on stderr.
        overwrite: Begin again, and replace what is in `out`.

    Raises:
        OutDirectoryError: `out` holds something else than a training to go on with.
        ValueError: A text is empty, or has too few documents for next sentence prediction.
        CheckpointError: The model is no BERT.
    """
    batching, options = batching or BatchOptions(), options or TrainOptions()
    if options.dimensions:
        raise ValueError("dimensions are those of sentence vectors; give them with the task similarity")
    check_out(out, overwrite)
    scope, replicas = strategy_scope(strategy)
    if replicas > 1:
        batching = replace(batching, drop_remainder=True)
    tokenizer = tokenizer_of(model, new=new, revision=revision)
    batches = text_batches(tokenizer, text, text.train, batching)
    head_class: Any = BertForPreTraining if text.next_sentence else BertForMaskedLM
    with scope:
        head = head_of(head_class, model, tokenizer, new=new, revision=revision, dtype=options.precision)
        origin = {"task": "mlm", "text": asdict(text) | {"train": "", "dev": "", "cache": ""}}
        origin |= origin_of_weights(head, tokenizer, new=new)
        freeze(head, options.freeze)
    evaluate = None
    if text.dev is not None:
        held_out = text_batches(tokenizer, text, text.dev, replace(batching, drop_remainder=False))
        # The masks of the held-out text are the same after every epoch.
        origin["held-out data"] = held_out.digest
        fixed = masking(tokenizer, text, batching.seq_length, text.seed + 1)

        def evaluate() -> dict[str, float]:
            return evaluate_masked(head, held_out, fixed, len(held_out))

    def save() -> None:
        head.save_pretrained(out)
        save_tokenizer(tokenizer, out, head.config.model_type, head.config.max_position_embeddings)

    history = train(
        head,
        batches,
        options,
        out,
        evaluate=evaluate,
        save=save,
        monitor=None if evaluate is None else "perplexity",
        higher=False,
        progress=progress,
        transform=masking(tokenizer, text, batching.seq_length, text.seed),
        origin=origin,
    )
    best = history[-1] if evaluate is None else min(history, key=lambda logs: logs["dev_perplexity"])
    monitor = None if evaluate is None else "dev_perplexity"
    return finish(out, history, best, monitor, how_chosen(best, len(history), monitor, str(text.dev), 0))
