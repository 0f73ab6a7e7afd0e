"""int8 with the real rknn-toolkit2: the gate, the recipe in the manifest, the search, MiniLM's bar."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest

from tests.export.models import agreement, bert
from tests.export.test_export_rknn import WIDE
from tfbert_npu.export.rknn import export_rknn
from tfbert_npu.export.source import ExportSource, tensorflow_reference
from tfbert_npu.onnx.running import random_inputs
from tfbert_npu.quantize.recipe import Operator, Recipe
from tfbert_npu.quantize.search import SearchError
from tfbert_npu.runtime import load_npu

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def _toolchain(toolchain):
    """Every test here needs one."""


@pytest.fixture(scope="module")
def small():
    config, state, _ = bert("BertModel", **WIDE)
    return ExportSource(config, state)


@pytest.fixture(scope="module")
def batches(small):
    return random_inputs(small.config, (1, 32), 12)


@pytest.mark.parametrize("embeddings", ["inside", "host"])
def test_int8_passes_its_gate_and_tells_its_recipe(small, batches, tmp_path, embeddings):
    recipe = Recipe(side_neurons=4, float16=frozenset({Operator(1, "down")}))
    shapes = ((1, 32),)
    manifest = export_rknn(
        small, tmp_path / "m", "rk3588", shapes, "w8a8", batches, recipe=recipe, embeddings=embeddings
    )
    full = export_rknn(small, tmp_path / "f", "rk3588", shapes, embeddings=embeddings)
    assert all(one["cosine"] > 0.99 for one in manifest.parity.values())
    assert Recipe.from_dict(manifest.build["quantization"]["recipe"]) == recipe
    assert manifest.cost["1x32"]["cycles"] < 0.8 * full.cost["1x32"]["cycles"]
    # The simulator backend compiles it again from the directory alone, and gets the very same model.
    inputs = random_inputs(small.config, (1, 32), 4)  # the gate's
    reference = tensorflow_reference(small).reference
    with load_npu(tmp_path / "m", "simulator") as model:
        pairs = [(one, model(one), reference(one)) for one in inputs]
    # Left to itself the compiler rounds an int8 model's outputs to 256 values.
    assert all(len(np.unique(got["sequence_output"])) > 1000 for _, got, _ in pairs)
    for name, measured in manifest.parity.items():
        found = [agreement(got[name], wanted[name], one["input_mask"], name) for one, got, wanted in pairs]
        assert min(one.cosine for one in found) == pytest.approx(measured["cosine"], abs=1e-7)
        assert max(one.max_abs for one in found) == pytest.approx(measured["max_abs"], rel=1e-3)


@pytest.mark.parametrize("platform", ["rk3576", "rk3562", "rk3566", "rk3568"])
def test_int8_on_the_other_socs(small, batches, tmp_path, platform):
    manifest = export_rknn(
        small, tmp_path / "m", platform, ((1, 32),), "w8a8", batches, recipe=Recipe(side_neurons=4)
    )
    assert all(one["cosine"] > 0.999 for one in manifest.parity.values())
    costs = json.loads((tmp_path / "m" / "cost.json").read_text())["1x32"]
    products = [row for row in costs if row["kind"].startswith("Conv") and ".side." not in row["name"]]
    in_layers = [row["dtype"] for row in products if row["name"].startswith("encoder.layer")]
    assert in_layers == ["INT8"] * 12


def test_int8_buckets_are_a_file_each(small, tmp_path):
    longest = random_inputs(small.config, (1, 64), 12)
    recipe = Recipe(side_neurons=4)
    manifest = export_rknn(
        small, tmp_path / "m", "rk3588", "buckets", "w8a8", longest, recipe=recipe, layout="static"
    )
    assert [file.shapes for file in manifest.rknn_files] == [((1, n),) for n in (16, 24, 32, 48, 64)]
    kinds = [file.path for file in manifest.support if file.kind == "quantization"]
    assert kinds == [f"model_b1_s{n}.quantization.json" for n in (16, 24, 32, 48, 64)]
    assert all(one["cosine"] > 0.99 for one in manifest.parity.values())


def test_the_search_puts_its_frontier_into_the_manifest(small, batches, tmp_path):
    manifest = export_rknn(
        small, tmp_path / "m", "rk3588", ((1, 32),), "w8a8", batches, max_cost=0.75, min_cosine=0.5
    )
    found = manifest.build["quantization"]
    assert found["chosen"]["cost"] <= 0.75
    assert found["chosen"] in found["frontier"]
    assert found["recipe"]["float16"] == found["chosen"]["float16"]
    assert {trial["rounding"] for trial in found["frontier"]} == {"gptq"}
    call = [sys.executable, "-m", "tfbert_npu", "inspect"]
    subprocess.run([*call, tmp_path / "m", "--frontier", tmp_path / "m.png"], check=True)
    assert (tmp_path / "m.png").read_bytes().startswith(b"\x89PNG")


def test_what_a_search_measured_is_kept_if_it_finds_nothing(small, batches, tmp_path):
    with pytest.raises(SearchError, match=r"cannot be met.*n\.failed/search\.json"):
        export_rknn(small, tmp_path / "n", "rk3588", ((1, 32),), "w8a8", batches, max_cost=0.1)
    assert not (tmp_path / "n").exists()
    call = [sys.executable, "-m", "tfbert_npu", "inspect"]
    subprocess.run([*call, tmp_path / "n.failed", "--frontier", tmp_path / "n.png"], check=True)
    assert (tmp_path / "n.png").read_bytes().startswith(b"\x89PNG")


def test_bad_calls_are_refused(small, batches, tmp_path):
    with pytest.raises(ValueError, match='for precision="w8a8"'):
        export_rknn(small, tmp_path / "m", shapes=((1, 32),), max_cost=0.6)
    with pytest.raises(ValueError, match="holds no text"):
        export_rknn(small, tmp_path / "m", shapes=((1, 32),), precision="w8a8", calibration=[])
    with pytest.raises(ValueError, match="tokenizer="):
        export_rknn(small, tmp_path / "m", shapes=((1, 32),), precision="w8a8")
    with pytest.raises(ValueError, match="one shape each"):
        export_rknn(small, tmp_path / "m", "rk3588", ((1, 16), (1, 32)), "w8a8", batches, recipe=Recipe())
    assert not list(tmp_path.glob("m"))
