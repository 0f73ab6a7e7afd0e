"""`rerank`: texts by how well they answer a query, as a cross-encoder reads the two together."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import numpy as np

from tfbert_npu.config import BertConfig
from tfbert_npu.errors import CheckpointError, TaskError
from tfbert_npu.tasks.loading import TaskModel
from tfbert_npu.tasks.running import check_command, length_for, listed, run, scores_of

Activation = Literal["sigmoid", "identity"]


@dataclass(frozen=True)
class Ranked:
    """A text and its score; `index` is its place among the texts that were given."""

    index: int
    score: float
    text: str


def rerank(
    model: TaskModel,
    query: str,
    texts: str | Sequence[str],
    top_k: int | None = None,
    *,
    activation: Activation | None = None,
    seq_length: int | None = None,
    batch_size: int = 32,
) -> list[Ranked]:
    """Rank texts by a cross-encoder's score of each with the query; pairs of like length go together.

    Args:
        model: What `load` gave: a sequence classifier with one label.
        query: What the texts are to answer.
        texts: B texts; one alone is a list of one. An empty one counts as none, as in Google's
            run_classifier.py, where `CrossEncoder` closes it with a second `[SEP]`.
        top_k: How many to give; by default all.
        activation: What makes a score of the model's number; by default what its files say, else the sigmoid,
            as in sentence-transformers' `CrossEncoder`.
        seq_length: Longest pair in tokens, by default the artifact's longest shape, or all positions; of a
            longer pair the longer text is trimmed.
        batch_size: Pairs per call of the model.

    Returns:
        The texts with their scores, the best first.

    Raises:
        TaskError: The model is no sequence classifier, or has several labels.
        CheckpointError: Its files name another activation.

    Example:
        >>> from tfbert_npu import tasks
        >>> model = tasks.load("cross-encoder/ms-marco-MiniLM-L6-v2")  # doctest: +SKIP
        >>> tasks.rerank(model, "Who ran?", ["A cat sat.", "Anna ran."])[0].text  # doctest: +SKIP
        'Anna ran.'
    """
    check_reranker(model)
    scores = pair_scores(model, query, texts, activation, seq_length, batch_size)
    order = np.argsort(-scores, kind="stable")[:top_k]
    return [Ranked(int(index), float(scores[index]), listed(texts)[index]) for index in order]


def check_reranker(model: TaskModel) -> None:
    """Make sure that a model scores pairs by one number.

    Raises:
        TaskError: It does not.
    """
    check_command(model, "rerank")
    if model.config.num_labels != 1:
        raise TaskError(
            f"{model.name} has {model.config.num_labels} labels, and a cross-encoder has one", "use classify"
        )


def pair_scores(
    model: TaskModel,
    query: str,
    texts: str | Sequence[str],
    activation: Activation | None = None,
    seq_length: int | None = None,
    batch_size: int = 32,
) -> np.ndarray:
    """The score of each text with the query, float64 [B], in their order; see `rerank`."""
    scored = activated(model, activation)
    texts = listed(texts)
    return scored(pair_logits(model, [query] * len(texts), list(texts), seq_length, batch_size)[:, 0])


def activated(model: TaskModel, activation: Activation | None = None) -> Callable[[np.ndarray], np.ndarray]:
    """What makes scores of a cross-encoder's logits; see `rerank`."""
    activation = activation or activation_in(model.folder, model.config)
    if activation not in get_args(Activation):
        raise ValueError(f"activation must be one of {', '.join(get_args(Activation))}, got {activation!r}")
    if activation == "identity":
        return lambda logits: logits
    return lambda logits: 0.5 * (1 + np.tanh(logits / 2))


def pair_logits(
    model: TaskModel,
    texts: Sequence[str],
    pairs: Sequence[str] | None,
    seq_length: int | None = None,
    batch_size: int = 32,
) -> np.ndarray:
    """A sequence classifier's logits of texts, or of pairs of texts, float64 [B, L].

    Those of like length are computed together; of a pair that is too long the longer text is trimmed.
    """
    if not texts:
        return np.zeros((0, model.config.num_labels))
    longest = length_for(model, seq_length, model.config.max_position_embeddings)
    inputs = model.tokenizer(
        list(texts),
        None if pairs is None else list(pairs),
        longest,
        trimming="longest_first",
        padding="longest",
    )
    sizes = inputs["input_mask"].sum(axis=1)
    rows, types = (
        [row[:size].tolist() for row, size in zip(inputs[name], sizes, strict=True)]
        for name in ("input_word_ids", "input_type_ids")
    )
    pad_id = model.tokenizer.vocabulary.pad_id
    outputs = run(model, rows, types, batch_size=batch_size, pad_id=pad_id)
    return np.array([scores_of(output, "logits", "nsp_logits") for output in outputs], np.float64)


def activation_in(folder: Path, config: BertConfig) -> Activation:
    """The activation that the files of a cross-encoder name; the sigmoid where they name none.

    Raises:
        CheckpointError: They name another one.
    """
    named = _values(folder / "config_sentence_transformers.json").get("activation_fn")
    named = named or config.score_activation or "Sigmoid"
    if (short := str(named).rpartition(".")[2]) == "Sigmoid":
        return "sigmoid"
    if short == "Identity":
        return "identity"
    raise CheckpointError(f"{folder} names the activation {named}, known are Sigmoid and Identity")


def _values(path: Path) -> dict[str, object]:
    values = json.loads(path.read_text(encoding="utf-8-sig")) if path.is_file() else {}
    return values if isinstance(values, dict) else {}
