"""`classify`: the class, the classes or the number that a model gives to a text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tfbert_npu.config import ProblemType
from tfbert_npu.tasks.loading import asks
from tfbert_npu.tasks.running import (
    as_tokenizer,
    call,
    check_labels,
    labels_of,
    length_for,
    listed,
    problem_type_of,
    scores_of,
    softmax,
)


@dataclass(frozen=True)
class Scored:
    """A label and its score: a probability, or the value itself in regression."""

    label: str
    score: float


@asks("classify")
def classify(
    model: Any,
    preprocessor: Any,
    texts: str | Sequence[str],
    text_pairs: str | Sequence[str] | None = None,
    *,
    labels: Sequence[str] | None = None,
    problem_type: ProblemType | None = None,
    seq_length: int | None = None,
    batch_size: int = 32,
) -> list[list[Scored]]:
    """Score every label for every text, the best first.

    Args:
        model: What `load` gave, after which come the texts; or a `BertForSequenceClassification` or
            `BertForNextSentencePrediction`, or a callable with such outputs.
        preprocessor: Its `BertPreprocessor` or `BertTokenizer`; of a loaded model left out.
        texts: B texts; one alone is a list of one.
        text_pairs: B second texts.
        labels: Label names; by default the model's.
        problem_type: By default the model's, else regression for one label and single label for more. Single
            label gives a softmax, multi label a sigmoid per label, regression the value itself.
        seq_length: Longest sequence in tokens, by default the artifact's longest shape, or 128; longer ones
            are trimmed.
        batch_size: Texts per call of the model.

    Returns:
        For each text all labels with their scores, in falling order (regression: in the order of labels).
    """
    tokenizer = as_tokenizer(preprocessor)
    texts, seq_length = listed(texts), length_for(model, seq_length)
    text_pairs = None if text_pairs is None else listed(text_pairs)
    names = labels_of(model, labels)
    kind = problem_type or problem_type_of(model)
    results = []
    for first in range(0, len(texts), batch_size):
        rows = slice(first, first + batch_size)
        pairs = None if text_pairs is None else list(text_pairs[rows])
        inputs = tokenizer(list(texts[rows]), pairs, seq_length)
        longest = -(-int(inputs["input_mask"].sum(axis=1).max()) // 16) * 16
        outputs = call(model, {name: array[:, :longest] for name, array in inputs.items()})
        logits = scores_of(outputs, "logits", "nsp_logits")
        check_labels(logits.shape[-1], names)
        results += [label_scores(row, names, kind) for row in logits]
    return results


def label_scores(logits: np.ndarray, names: Sequence[str], kind: str) -> list[Scored]:
    """Labels with the scores that logits [L] mean; see `classify` for `kind` and order."""
    if kind == "regression":
        return [Scored(name, float(value)) for name, value in zip(names, logits, strict=True)]
    if kind == "multi_label_classification":
        scores = 0.5 * (1 + np.tanh(logits.astype(np.float64) / 2))
    else:
        scores = softmax(logits)
    return [Scored(names[index], float(scores[index])) for index in np.argsort(-scores, kind="stable")]
