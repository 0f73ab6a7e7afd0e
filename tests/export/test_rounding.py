"""int8 weights: the compiler's grid, GPTQ on it, corrected biases."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from onnx import TensorProto, helper, numpy_helper

from tests.export.models import bert, padded_inputs
from tfbert_npu.onnx.model import write_graph
from tfbert_npu.quantize.activations import record
from tfbert_npu.quantize.grid import INT8, WEIGHT_ONLY, Grid
from tfbert_npu.quantize.plan import plan, ranges_of
from tfbert_npu.quantize.ranges import rounded
from tfbert_npu.quantize.recipe import Operator, Recipe, last_block, operators
from tfbert_npu.quantize.rounding import gptq, round_weights
from tfbert_npu.rknn.worker import VendorSession

WEIGHTS = hnp.arrays(
    np.float32,
    st.tuples(st.integers(1, 6), st.integers(2, 9)),
    elements=st.floats(-4, 4, width=32, allow_subnormal=False),
)


GRIDS = [INT8, WEIGHT_ONLY["w8a16"], Grid(4, symmetric=True), Grid(4, symmetric=True, group=3)]


@pytest.mark.parametrize("grid", GRIDS, ids=str)
@settings(max_examples=60, deadline=None)
@given(weight=WEIGHTS)
def test_rounded_weights_are_a_fixed_point_of_the_grid(grid, weight):
    if not grid.fits(weight):
        weight = np.repeat(weight, grid.group, axis=1)
    once = grid.nearest(weight)
    step, least = grid.of(weight)
    assert np.all(np.abs(once - weight) <= 0.501 * step + 1e-7)
    steps = np.round(once / step)
    assert np.all((steps >= least) & (steps <= least + grid.steps))
    # The compiler sees only the rounded weights, and must not round them again to something else.
    best = gptq(weight, np.eye(weight.shape[1]), grid)
    np.testing.assert_allclose(grid.nearest(best), best, atol=1e-6)


def test_a_grid_of_groups_is_that_of_each_group():
    weight = np.random.default_rng(0).normal(size=(5, 96)).astype(np.float32)
    whole, group = Grid(4, symmetric=True), Grid(4, symmetric=True, group=32)
    for first in range(0, 96, 32):
        part = weight[:, first : first + 32]
        np.testing.assert_array_equal(group.nearest(weight)[:, first : first + 32], whole.nearest(part))
    assert not group.fits(weight[:, :40])


@pytest.fixture
def correlated():
    """Inputs whose channels go together, as hidden states do, and weights with outliers."""
    rng = np.random.default_rng(3)
    x = rng.normal(size=(600, 8)) @ rng.normal(size=(8, 96)) + 0.3 * rng.normal(size=(600, 96)) + 0.5
    weight = rng.standard_t(3, size=(40, 96))
    return x.astype(np.float32), weight.astype(np.float32)


def test_gptq_errs_less_than_nearest_rounding_on_inputs_it_has_not_seen(correlated):
    x, weight = correlated
    half, other = x[::2], x[1::2]

    def error(w):
        return float(np.mean((other @ (w - weight).T) ** 2))

    for grid in (INT8, *WEIGHT_ONLY.values()):
        assert error(gptq(weight, half, grid)) < 0.5 * error(grid.nearest(weight))


@pytest.mark.parametrize("grid", [INT8, *WEIGHT_ONLY.values()], ids=str)
def test_gptq_keeps_what_the_grid_hangs_on(correlated, grid):
    x, weight = correlated
    out = gptq(weight, x, grid)
    np.testing.assert_allclose(grid.of(out)[0], grid.of(weight)[0], rtol=1e-6)
    kept = ~np.isnan(grid.ends(weight))
    assert kept.sum() == {None: 40, 32: 120}[grid.group] * (1 if grid.symmetric else 2)
    np.testing.assert_allclose(out[kept], weight[kept], atol=0.51 * grid.of(weight)[0].max())
    np.testing.assert_allclose(grid.nearest(out), out, atol=1e-6)


def test_products_in_float16_stay_and_the_others_keep_their_mean():
    config, state, _ = bert("BertModel")
    seen = record(write_graph(config, state), config, [padded_inputs(config, batch=6, length=20)])
    recipe = Recipe(float16=last_block(config) | {Operator(0, "key")})
    ranges = ranges_of(seen, recipe)
    out = round_weights(state, config, seen, ranges, recipe.float16)
    for operator in operators(config):
        before, after = (one[f"{operator.weights}.weight"] for one in (state, out))
        if operator in recipe.float16:
            assert after is before
            continue
        assert np.abs(after - before).max() > 0
        np.testing.assert_allclose(INT8.nearest(after), after, atol=1e-6)
        x = seen[operator.reads]
        bias = f"{operator.weights}.bias"
        exact = x @ before.T + state[bias]
        held = rounded(x, *ranges[operator.reads]) @ after.T + out[bias]
        np.testing.assert_allclose(held.mean(axis=0), exact.mean(axis=0), atol=1e-5)
    assert {name for name in out if out[name] is not state[name]} <= {
        f"{one.weights}.{part}" for one in operators(config) for part in ("weight", "bias")
    }


def test_rounding_needs_ranges():
    config, state, _ = bert("BertModel")
    with pytest.raises(ValueError, match='rounding="gptq" needs ranges'):
        plan(config, state, Recipe(ranges="vendor"), [padded_inputs(config)])
    plan(config, state, replace(Recipe(ranges="vendor"), rounding="nearest"), [padded_inputs(config)])


@pytest.mark.slow
@pytest.mark.parametrize("prepare", [lambda weight, x: weight, gptq], ids=["plain", "gptq"])
def test_the_compiler_uses_this_grid(toolchain, tmp_path, prepare):
    """Single inputs of 1 through a compiled int8 product show its weights, to half a step of the output.

    The output's range is a part of the weights', so that its step is smaller than theirs.
    """
    rng = np.random.default_rng(0)
    size, rows = 64, 32
    weight = prepare(rng.standard_t(4, size=(size, size)).astype(np.float32), rng.normal(size=(500, size)))
    x = np.zeros((1, rows, size), np.float32)
    x[0, np.arange(rows), np.arange(rows)] = 1.0
    end = float(np.quantile(np.abs(weight), 0.3))
    path = tmp_path / "product.onnx"
    path.write_bytes(_product(weight, rows).SerializeToString())
    with VendorSession(toolchain, tmp_path / "log") as session:
        files = session.hybrid_step1(
            path,
            {"target_platform": "rk3588", "quantized_dtype": "w8a8"},
            [[x]],
            load={"inputs": ["x"], "input_size_list": [[1, rows, size]]},
            proposal=False,
        )
        document = yaml.safe_load(files.config.read_text(encoding="utf-8"))
        for name, value in document["quantize_parameters"].items():
            low, high = (0.0, 1.0) if name.startswith("x") else (-end * 128 / 127, end)
            if name != "w":
                value["min"], value["max"] = [low], [high]
        document["custom_quantize_layers"] = {}
        files.config.write_text(yaml.dump(document, sort_keys=False), encoding="utf-8")
        session.hybrid_step2(files)
        found = session.infer([x])[0][0].T
    expected = INT8.nearest(weight)[:, :rows]
    inside = np.abs(expected) < 0.95 * end
    step = end / 127
    assert inside.mean() > 0.2
    assert np.median(INT8.of(weight)[0]) > 2 * step
    assert np.abs(found - expected)[inside].max() <= 0.51 * step


def _product(weight, rows):
    """y = x W^T + 0 as ONNX."""
    size = weight.shape[0]
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["product"], name="dense/MatMul"),
        helper.make_node("Add", ["product", "bias"], ["y"], name="dense/Add"),
    ]
    constants = [
        numpy_helper.from_array(np.ascontiguousarray(weight.T), "w"),
        numpy_helper.from_array(np.zeros(size, np.float32), "bias"),
    ]
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, rows, size]) for name in "xy")
    graph = helper.make_graph(nodes, "product", [x], [y], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 8
    return model
