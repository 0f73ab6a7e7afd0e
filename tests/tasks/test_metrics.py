"""Metrics against scikit-learn, scipy, and values of SQuAD's own script; test_schemes.py has seqeval's."""

import math

import numpy as np
import pytest

from tfbert_npu.tasks.metrics import (
    class_metrics,
    entity_metrics,
    multi_label_metrics,
    normalize_answer,
    perplexity,
    regression_metrics,
    squad_metrics,
)
from tfbert_npu.tasks.schemes import group_entities


def test_entity_examples():
    # O I-PER: an entity begins at an I- tag too; a change of label ends one (conlleval).
    assert group_entities(["I-PER", "I-PER", "I-LOC", "O", "B-LOC", "B-LOC", "x"]) == [
        ("PER", 0, 2),
        ("LOC", 2, 3),
        ("LOC", 4, 5),
        ("LOC", 5, 6),
    ]
    with pytest.raises(ValueError, match="2 tags expected but 1 found"):
        entity_metrics([["O", "O"]], [["O"]])


def test_class_and_multi_label_metrics():
    assert class_metrics([0, 1, 2, 2], [0, 1, 2, 1]) == {
        "accuracy": 0.75,
        "f1_macro": pytest.approx((1 + 2 / 3 + 2 / 3) / 3),
        "mcc": pytest.approx(0.7),
    }
    found = multi_label_metrics(np.array([[1, 0], [1, 1]]), np.array([[1, 0], [1, 0]]))
    assert found == {"f1_micro": 0.8, "f1_macro": 0.5, "exact_match": 0.5}


def test_regression_metrics():
    found = regression_metrics([1.0, 2.0, 3.0], [2.0, 4.0, 7.0])
    assert found["pearson"] == pytest.approx(np.corrcoef([1, 2, 3], [2, 4, 7])[0, 1])
    assert found["spearman"] == 1.0
    assert found["mse"] == pytest.approx((1 + 4 + 16) / 3)
    assert math.isnan(regression_metrics([1.0, 2.0], [3.0, 3.0])["pearson"])


def test_squad_metrics():
    assert normalize_answer("The  Cat's, a hat!") == "cats hat"
    found = squad_metrics([["The Cat"], ["two dogs", "dogs"], []], ["cat", "big dogs", ""])
    assert found["exact_match"] == pytest.approx(2 / 3)
    assert found["f1"] == pytest.approx((1 + 2 / 3 + 1) / 3)
    # An answer that is all articles normalizes to nothing; evaluate-v2.0.py scores 0 or 1 then.
    assert squad_metrics([["cat"]], ["the"])["f1"] == 0


def test_perplexity():
    assert perplexity(0.0) == 1.0
    assert perplexity(math.log(50)) == pytest.approx(50)
    assert perplexity(1e4) == math.inf
