"""The gate's arithmetic."""

from __future__ import annotations

import numpy as np
import pytest

from tfbert_npu.export.gate import Agreement, activation_ranges, agreement, failures, worst_of

RNG = np.random.default_rng(3)
MASK = np.array([[1, 1, 1, 0], [1, 1, 0, 0]], np.int32)


def test_what_stands_at_padding_does_not_count():
    expected = RNG.normal(size=(2, 4, 5))
    got = np.where(MASK[..., None] == 1, expected, np.nan)
    assert agreement(got, expected, MASK) == Agreement(pytest.approx(1.0), 0.0, 0)


def test_a_real_token_counts():
    expected = RNG.normal(size=(2, 4, 5))
    got = expected.copy()
    got[1, 1] += 0.5
    one = agreement(got, expected, MASK)
    assert one.cosine < 0.99
    assert one.max_abs == pytest.approx(0.5)
    got[0, 2, 3] = np.nan
    broken = agreement(got, expected, MASK)
    assert broken.not_finite == 1
    assert failures({"x": broken}, -1.0) == ["x holds 1 numbers that are NaN or infinite"]


def test_the_worst_text_decides():
    expected = RNG.normal(size=(2, 5))
    got = expected.copy()
    got[1] = -got[1]
    assert agreement(got, expected, MASK).cosine == pytest.approx(-1.0)


def test_zero_agrees_with_zero_alone():
    zero, one = np.zeros((1, 3)), np.ones((1, 3))
    mask = np.ones((1, 4), np.int32)
    assert agreement(zero, zero, mask).cosine == 1.0
    assert agreement(one, zero, mask).cosine == 0.0


def test_another_shape_is_an_error():
    with pytest.raises(ValueError, match="shape"):
        agreement(np.zeros((1, 3)), np.zeros((1, 4)), MASK)


def test_worst_of_takes_each_figure_by_itself():
    worst = worst_of([{"a": Agreement(0.9, 0.1, 0)}, {"a": Agreement(0.99, 0.7, 2)}])
    assert worst == {"a": Agreement(0.9, 0.7, 2)}
    assert failures(worst_of([{"a": Agreement(0.9, 0.1, 0)}]), 0.95) == ["a has cosine 0.900000, below 0.95"]
    assert failures({"a": Agreement(0.95, 0.1, 0)}, 0.95) == []


def test_ranges_name_the_operator_that_is_largest(tmp_path):
    import onnx

    from tfbert_npu.onnx.model import write_graph

    from .models import bert, padded_inputs

    config, state, _ = bert("BertModel")
    state["encoder.layer.1.output.dense.weight"] = state["encoder.layer.1.output.dense.weight"] * 1e6
    path = tmp_path / "model.onnx"
    onnx.save(write_graph(config, state), path)
    ranges = activation_ranges(str(path), list(padded_inputs(config).values()))
    largest = max(ranges, key=lambda name: ranges[name])
    assert largest.startswith("encoder.layer.1.")
    assert ranges[largest] > 65504
    assert not any("scores/Add" in name for name in ranges)  # holds the mask's -1e4 by design
