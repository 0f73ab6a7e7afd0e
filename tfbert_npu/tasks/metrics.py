"""How good predictions are: accuracy, F1, correlations, entity F1, SQuAD's EM and F1, perplexity.

The `train` extra brings scikit-learn and scipy; SQuAD's metrics need neither.
"""

from __future__ import annotations

import math
import re
import string
from collections import Counter
from collections.abc import Sequence
from typing import Any

from tfbert_npu.errors import require
from tfbert_npu.tasks.schemes import LabelScheme, group_entities, recognize_scheme


def class_metrics(expected: Sequence[int], found: Sequence[int]) -> dict[str, float]:
    """Accuracy, macro-averaged F1 and Matthews' correlation of class indices."""
    scores = require("sklearn.metrics", "train")
    return {
        "accuracy": float(scores.accuracy_score(expected, found)),
        "f1_macro": float(scores.f1_score(expected, found, average="macro", zero_division=0)),
        "mcc": float(scores.matthews_corrcoef(expected, found)),
    }


def multi_label_metrics(expected: Any, found: Any) -> dict[str, float]:
    """Micro- and macro-averaged F1 of 0/1 matrices [rows, labels], and the share of rows all right."""
    scores = require("sklearn.metrics", "train")
    return {
        "f1_micro": float(scores.f1_score(expected, found, average="micro", zero_division=0)),
        "f1_macro": float(scores.f1_score(expected, found, average="macro", zero_division=0)),
        "exact_match": float(scores.accuracy_score(expected, found)),
    }


def regression_metrics(expected: Sequence[float], found: Sequence[float]) -> dict[str, float]:
    """Pearson's and Spearman's correlation and the mean squared error; NaN where one side is constant."""
    stats = require("scipy.stats", "train")
    constant = len(set(expected)) < 2 or len(set(found)) < 2
    return {
        "pearson": math.nan if constant else float(stats.pearsonr(expected, found).statistic),
        "spearman": math.nan if constant else float(stats.spearmanr(expected, found).statistic),
        "mse": sum((a - b) ** 2 for a, b in zip(expected, found, strict=True)) / len(expected),
    }


def entity_metrics(
    expected: Sequence[Sequence[str]], found: Sequence[Sequence[str]], scheme: LabelScheme | None = None
) -> dict[str, float]:
    """Micro-averaged precision, recall and F1 of whole entities.

    Args:
        expected: The right labels of each sentence's words.
        found: The labels that a model gave.
        scheme: How labels mark entities; by default recognized from all labels here.

    An entity counts if its label, its first and its last word are right: the definition of conlleval and of
    seqeval's default mode, against which this is tested. seqeval itself cannot be a dependency: its only
    release is a source archive that present setuptools do not build.
    """
    if scheme is None:
        scheme = recognize_scheme({label for labels in (*expected, *found) for label in labels})
    right = of_expected = of_found = 0
    for wanted_tags, found_tags in zip(expected, found, strict=True):
        if len(wanted_tags) != len(found_tags):
            raise ValueError(f"{len(wanted_tags)} tags expected but {len(found_tags)} found in one sentence")
        wanted, got = set(group_entities(wanted_tags, scheme)), set(group_entities(found_tags, scheme))
        right += len(wanted & got)
        of_expected += len(wanted)
        of_found += len(got)
    precision = right / of_found if of_found else 0.0
    recall = right / of_expected if of_expected else 0.0
    f1 = 2 * right / (of_expected + of_found) if of_expected + of_found else 0.0
    return {"precision": precision, "recall": recall, "f1": f1}


def squad_metrics(expected: Sequence[Sequence[str]], found: Sequence[str]) -> dict[str, float]:
    """Exact match and token F1, in [0, 1], of SQuAD's official evaluate-v2.0.py.

    Args:
        expected: For each question its right answers; empty where it has none.
        found: For each question the answer given; empty for "no answer".
    """
    exact = total = 0.0
    for answers, given in zip(expected, found, strict=True):
        wanted = [answer for answer in answers if normalize_answer(answer)] or [""]
        exact += max(float(normalize_answer(answer) == normalize_answer(given)) for answer in wanted)
        total += max(_token_f1(answer, given) for answer in wanted)
    return {"exact_match": exact / len(found), "f1": total / len(found)}


def normalize_answer(text: str) -> str:
    """Lower case, without ASCII punctuation, the articles a, an and the, and surplus white space."""
    text = "".join(character for character in text.lower() if character not in string.punctuation)
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", text).split())


def _token_f1(expected: str, found: str) -> float:
    wanted, got = normalize_answer(expected).split(), normalize_answer(found).split()
    if not wanted or not got:
        return float(wanted == got)
    common = sum((Counter(wanted) & Counter(got)).values())
    return 2 * common / (len(wanted) + len(got))


def perplexity(loss: float) -> float:
    """The exponential of a mean cross-entropy in nats; infinite where that is out of range."""
    return math.exp(loss) if loss < 700 else math.inf
