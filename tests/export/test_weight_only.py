"""Weights of 8 and of 4 bits with inputs in float16: the compiler's grid, the gate, the simulator."""

from __future__ import annotations

import numpy as np
import pytest

from tests.export.models import agreement, bert
from tests.export.test_export_rknn import WIDE
from tfbert_npu.export.rknn import export_rknn
from tfbert_npu.export.source import ExportSource
from tfbert_npu.onnx.running import random_inputs
from tfbert_npu.quantize.grid import WEIGHT_ONLY, Grid
from tfbert_npu.quantize.plan import round_products
from tfbert_npu.quantize.recipe import operators
from tfbert_npu.runtime import load_npu

PLATFORMS = {"w8a16": "rk3562", "w4a16": "rk3576"}
LOSSLESS = 0.999998
"""A cosine that float16 alone reaches on this model."""


@pytest.fixture(scope="module")
def small():
    config, state, _ = bert("BertModel", **WIDE)
    return ExportSource(config, state)


def products(source):
    return [f"{one.weights}.weight" for one in operators(source.config)] + ["pooler.dense.weight"]


def test_only_products_are_rounded_and_all_of_them(small):
    for grid in WEIGHT_ONLY.values():
        out = round_products(small.config, small.state, grid, random_inputs(small.config, (1, 32), 8))
        for name in products(small):
            assert np.abs(out[name] - small.state[name]).max() > 0
            np.testing.assert_allclose(grid.nearest(out[name]), out[name], atol=1e-6)
        biases = {name.replace(".weight", ".bias") for name in products(small)}
        changed = {name for name in out if not np.array_equal(out[name], small.state[name])}
        assert changed <= {*products(small), *biases}


def test_what_does_not_fall_into_groups_is_left_to_the_compiler():
    config, state, _ = bert("BertModel", hidden_size=40, num_attention_heads=2, intermediate_size=64)
    source = ExportSource(config, state)
    out = round_products(config, state, WEIGHT_ONLY["w4a16"], random_inputs(config, (1, 16), 4))
    for name in products(source):
        fits = state[name].shape[1] == 64
        assert np.array_equal(out[name], state[name]) == (not fits)


@pytest.mark.slow
@pytest.mark.parametrize("precision", PLATFORMS)
def test_the_compiler_leaves_weights_alone_that_are_on_the_grid(small, toolchain, tmp_path, precision):
    """And not those that are on another: each SoC rounds to one grid of several that it could have."""
    grid, batch = WEIGHT_ONLY[precision], random_inputs(small.config, (1, 32), 1)
    other = Grid(grid.bits, symmetric=False, group=grid.group)
    cosines = {}
    for name, one in {"own": grid, "other": other}.items():
        state = {**small.state, **{n: one.nearest(small.state[n]) for n in products(small)}}
        source = ExportSource(small.config, state)
        directory = tmp_path / name
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("tfbert_npu.export.rknn.round_products", lambda config, state, *_: state)
            manifest = export_rknn(
                source, directory, PLATFORMS[precision], ((1, 32),), precision, batch, min_cosine=0.5
            )
        cosines[name] = min(result["cosine"] for result in manifest.parity.values())
    assert cosines["own"] > LOSSLESS
    assert cosines["other"] < 0.99999


@pytest.mark.slow
@pytest.mark.parametrize("precision", PLATFORMS)
def test_all_lengths_in_one_file(small, toolchain, tmp_path, precision):
    batches = random_inputs(small.config, (1, 64), 12)
    platform, shapes = PLATFORMS[precision], ((1, 16), (1, 64), (4, 32))
    manifest = export_rknn(small, tmp_path / "m", platform, shapes, precision, batches)
    (file,) = manifest.rknn_files
    assert (file.precision, file.platform) == (precision, platform)
    assert sorted(file.shapes) == sorted(shapes)
    full = export_rknn(small, tmp_path / "fp16", platform, shapes)
    assert file.size < full.rknn_files[0].size
    assert manifest.cost["1x64"]["mb_moved"] < full.cost["1x64"]["mb_moved"]
    (inputs,) = random_inputs(small.config, (1, 64), 1)
    with load_npu(tmp_path / "m", "onnx") as onnx, load_npu(tmp_path / "m", "simulator") as simulated:
        expected, got = onnx(inputs), simulated(inputs)
    for name in ("pooled_output", "sequence_output"):
        # Both compute with the rounded weights: nothing but float16 is between them.
        assert agreement(got[name], expected[name], inputs["input_mask"], name).cosine > LOSSLESS


def test_gptq_rounding_is_what_four_bits_need(small):
    """Without the compiler: the same model with weights rounded to nearest is worse by far."""
    from tests.export.test_graph import run
    from tfbert_npu.onnx.model import write_graph

    grid, batches = WEIGHT_ONLY["w4a16"], random_inputs(small.config, (2, 32), 8)
    inputs = random_inputs(small.config, (4, 32), 9)[-1]
    nearest = {**small.state, **{n: grid.nearest(small.state[n]) for n in products(small)}}
    best = round_products(small.config, small.state, grid, batches)
    exact, plain, ours = (
        run(write_graph(small.config, state), inputs)["sequence_output"]
        for state in (small.state, nearest, best)
    )
    errors = [1 - agreement(one, exact, inputs["input_mask"]).cosine for one in (plain, ours)]
    assert errors[1] < 0.7 * errors[0]
