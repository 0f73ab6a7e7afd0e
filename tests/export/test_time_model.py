"""The time model against what was published, with the shape or the model in question left out of the fit."""

from __future__ import annotations

import importlib.util
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from rich.console import Console

from tfbert_npu.cli import cli
from tfbert_npu.platforms import platform_named
from tfbert_npu.rknn.cost import Cost, Operator
from tfbert_npu.rknn.time_model import (
    NoTimingsError,
    Work,
    described,
    fitted,
    predict,
    predicted,
    work_of_encoder,
    work_of_operators,
)

ROOT = Path(__file__).resolve().parent.parent.parent
RK3588 = platform_named("rk3588")
MINILM = {"layers": 6, "hidden": 384, "heads": 12, "inner": 1536}


@pytest.fixture(scope="module")
def refit() -> dict[str, Any]:
    pytest.importorskip("scipy")
    spec = importlib.util.spec_from_file_location("fit_time_model", ROOT / "benchmarks" / "fit_time_model.py")
    assert spec is not None
    assert spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    return script.fit_all(Console(quiet=True))


def test_the_file_is_what_the_script_fits(refit: dict[str, Any]) -> None:
    for kind, coefficients in fitted()["coefficients"].items():
        assert refit["coefficients"][kind] == pytest.approx(coefficients, rel=1e-3)


def test_a_shape_left_out_is_predicted(refit: dict[str, Any]) -> None:
    assert refit["left_out_rms"]["attention"] <= 0.08
    assert refit["left_out_rms"]["product"] <= 0.10


@pytest.mark.parametrize(
    ("layers", "length", "measured"),
    [
        (12, 512, 184.0),  # Orange Pi 5 Max, ZinkoSoft/py-tars
        (6, 256, 39.3 - 10.0),  # the same; about 10 ms of it are its tokenizer
    ],
)
def test_whole_models_outside_of_the_fit(layers: int, length: int, measured: float) -> None:
    found = predict(work_of_encoder(**{**MINILM, "layers": layers}, length=length), RK3588)
    assert found.milliseconds == pytest.approx(measured, rel=0.10)
    assert abs(found.milliseconds - measured) < 2 * found.error_ms


def test_the_compilers_table_gives_the_encoders_operators() -> None:
    """The table of 0.1's fixture, one layer of 16: products, an attention, norms, as the architecture says."""
    table = json.loads((ROOT / "tests/data/v0.1/artifact/cost.json").read_text())["1x16"]
    work, unknown = work_of_operators(Operator(**row) for row in table)
    assert unknown == ()
    layer = work_of_encoder(layers=1, hidden=16, heads=2, inner=32, length=16)
    in_table = [one for one in work if one.kind in ("product", "attention")]
    for one in layer:
        if one.kind in ("product", "attention"):
            in_table.remove(one)
    # What is left is the pooler and the classifier.
    assert [one.sizes for one in in_table] == [(16, 16, 1), (16, 3, 1)]
    assert sum(one.kind == "norm" for one in work) == 3


def test_each_row_of_a_batch_reads_the_weights_again() -> None:
    one = predict(work_of_encoder(**MINILM, length=16), RK3588)
    eight = predict(work_of_encoder(**MINILM, length=16, batch=8), RK3588)
    packed = predict(work_of_encoder(**MINILM, length=128), RK3588)
    assert eight.by_kind["product"] > 4 * one.by_kind["product"]
    assert packed.milliseconds < eight.milliseconds / 2


def test_other_chips_have_no_data() -> None:
    with pytest.raises(NoTimingsError, match="rk3576"):
        predict([], platform_named("rk3576"))


def test_int8_says_that_it_is_not_calibrated() -> None:
    fp16 = predict(work_of_encoder(**MINILM, length=128), RK3588)
    int8 = predict(work_of_encoder(**MINILM, length=128, int8=True), RK3588)
    assert fp16.calibrated
    assert not int8.calibrated
    assert int8.milliseconds < fp16.milliseconds
    assert int8.error_ms / int8.milliseconds > fp16.error_ms / fp16.milliseconds


def test_a_slower_board_of_the_same_chip() -> None:
    work = work_of_encoder(**MINILM, length=128)
    assert 1.3 < predict(work, RK3588, board="rk1").milliseconds / predict(work, RK3588).milliseconds < 2


def test_an_operator_that_nobody_timed_is_named() -> None:
    row = Operator("exSoftmax13", "FLOAT16", "NPU", "(1,2,16,16)", "(1,2,16,16)", 0, 0, 0, 1, "softmax")
    work, unknown = work_of_operators([row, replace(row, kind="exSoftmax13"), replace(row, target="CPU")])
    assert (work, unknown) == ([], ("exSoftmax13",))
    assert predict([Work("norm", (100,))], RK3588, unknown=unknown).unknown == ("exSoftmax13",)


def test_figures_for_people() -> None:
    assert described({"milliseconds": 12.905, "error_ms": 1.18, "unknown": []}) == "12.9 ± 1.2"
    assert described({"milliseconds": 1.0, "error_ms": 0.1, "unknown": ["x"]}) == "1.0 ± 0.1 at least"
    assert described({"reason": "no timings of an rk3576"}) == described(None) == "no data"
    cost = Cost((), 0, 0)
    assert set(predicted(cost, platform_named("rk3562"))) == {"reason"}
    assert predicted(cost, RK3588)["milliseconds"] == 0


def test_inspect_shows_the_prediction_and_an_artifact_of_before_has_none() -> None:
    environment = {"COLUMNS": "200"}
    shown = (
        CliRunner().invoke(cli, ["inspect", str(ROOT / "tests/data/v0.1/artifact")], env=environment).output
    )
    assert "ms [predicted]" in shown
    assert "no data" in shown
