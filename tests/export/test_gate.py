"""The gate's arithmetic."""

from __future__ import annotations

import numpy as np
import pytest

from tfbert_npu.artifact.agreement import Agreement, compare, failures, text_scores, worst_of
from tfbert_npu.export.gate import activation_ranges
from tfbert_npu.heads import OutputSpec

RNG = np.random.default_rng(3)
MASK = np.array([[1, 1, 1, 0], [1, 1, 0, 0]], np.int32)
TOKENS = OutputSpec("x", ("B", "S", "H"))
TEXT = OutputSpec("x", ("B", "H"))


def agreement(got, expected, mask, spec):
    return compare([{"x": got}], [{"x": expected}], [mask], [spec])["x"]


def test_what_stands_at_padding_does_not_count():
    expected = RNG.normal(size=(2, 4, 5))
    got = np.where(MASK[..., None] == 1, expected, np.nan)
    assert agreement(got, expected, MASK, TOKENS) == Agreement(pytest.approx(1.0), 0.0, 0)


def test_a_real_token_counts():
    expected = RNG.normal(size=(2, 4, 5))
    got = expected.copy()
    got[1, 1] += 0.5
    one = agreement(got, expected, MASK, TOKENS)
    assert one.cosine < 0.99
    assert one.max_abs == pytest.approx(0.5)
    got[0, 2, 3] = np.nan
    broken = agreement(got, expected, MASK, TOKENS)
    assert broken.not_finite == 1
    assert failures({"x": broken}, -1.0) == ["x holds 1 numbers that are NaN or infinite"]


@pytest.mark.parametrize("length", [3, 6, 128])
def test_a_vector_as_long_as_the_text_is_compared_as_a_whole(length):
    """Hidden size or labels == length: the axes say what the numbers are, not their count."""
    mask = np.zeros((2, length), np.int32)
    mask[:, :2] = 1
    expected = RNG.normal(size=(2, length))
    got = expected.copy()
    got[:, 2:] *= -1
    assert agreement(got, expected, mask, TEXT).cosine < 0.99
    # The same numbers as one for each token: what stands at padding means nothing.
    assert agreement(got, expected, mask, OutputSpec("x", ("B", "S"))).cosine == pytest.approx(1.0)


@pytest.mark.parametrize("side", ["got", "expected"])
@pytest.mark.parametrize("number", [np.nan, np.inf])
def test_no_number_on_either_side_fails(side, number):
    values = {"got": RNG.normal(size=(2, 5)), "expected": RNG.normal(size=(2, 5))}
    values[side][1, 1] = number
    one = agreement(values["got"], values["expected"], MASK, TEXT)
    assert (one.cosine, one.not_finite) == (-1.0, 1)
    assert failures({"x": one}, -1.0)


def test_the_worst_text_decides():
    expected = RNG.normal(size=(2, 5))
    got = expected.copy()
    got[1] = -got[1]
    assert agreement(got, expected, MASK, TEXT).cosine == pytest.approx(-1.0)


@pytest.mark.parametrize("axes", [("B", 1), ("B", "L"), ("B",)])
def test_one_number_for_a_text_is_judged_by_the_spread_over_all(axes):
    """Same-sign values of any size have cosine 1, so a reranker's scores would pass whatever they are."""
    spec = OutputSpec("x", axes)
    shape = (8, 1) if len(axes) > 1 else (8,)
    mask = np.ones((8, 4), np.int32)
    expected = np.linspace(1, 8, 8).reshape(shape)
    spread = float(np.std(expected))
    assert agreement(expected, expected, mask, spec) == Agreement(1.0, 0.0, 0)
    assert agreement(expected[::-1], expected, mask, spec).cosine < 0
    assert agreement(expected + 2, expected, mask, spec).cosine == pytest.approx(1 - 4 / (2 * spread**2))
    # float16's rounding passes the gate of fp16.
    assert agreement(expected.astype(np.float16), expected * 1.0001, mask, spec).cosine > 0.9999


def test_one_number_over_several_batches_shares_their_spread():
    spec = OutputSpec("x", ("B", 1))
    expected = [np.array([[value]]) for value in (1.0, 5.0, 9.0)]
    got = [value + 0.1 for value in expected]
    masks = [np.ones((1, 4), np.int32)] * 3
    spread = float(np.std([1, 5, 9]))
    assert text_scores(got, expected, masks, spec) == pytest.approx([1 - 0.01 / (2 * spread**2)] * 3)


def test_zero_agrees_with_zero_alone():
    zero, one = np.zeros((1, 3)), np.ones((1, 3))
    mask = np.ones((1, 4), np.int32)
    for count in (3, 1):
        assert agreement(zero[:, :count], zero[:, :count], mask, TEXT).cosine == 1.0
        assert agreement(one[:, :count], zero[:, :count], mask, TEXT).cosine == 0.0


def test_another_shape_is_an_error():
    with pytest.raises(ValueError, match="shape"):
        agreement(np.zeros((1, 3)), np.zeros((1, 4)), MASK, TEXT)


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
