"""A call that the NPU did not compute gives the last call's outputs: nobody may get them."""

from __future__ import annotations

import logging
import os
import random
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from tfbert_npu import load_npu
from tfbert_npu.runtime import BackendError, files
from tfbert_npu.runtime.onnx import OnnxBackend
from tfbert_npu.runtime.rknn import RknnBackend

from .artifacts import requests
from .conftest import Board
from .double.model_file import Compute, FakeModel
from .encoders import export_small, small_encoder
from .expected import assert_right

NAMES = ("input_word_ids", "input_mask", "input_type_ids")


def ask(model: object, count: int, threads: int = 6) -> None:
    """Many requests at once, each held against what it must give."""

    def one(seed: int) -> None:
        rng = np.random.default_rng(seed)
        inputs = requests(rng, int(rng.integers(1, 4)), 16)
        assert_right(model(inputs), inputs)  # type: ignore[operator]

    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(one, range(count)))


def test_two_of_three_cores_that_never_compute_are_left_out_at_the_start(
    artifact: Path, board: Board, caplog: pytest.LogCaptureFixture
) -> None:
    driver = board()
    driver.faults.failing = lambda core: core > 0
    with caplog.at_level(logging.WARNING, "tfbert_npu"), load_npu(artifact) as model:
        ask(model, 30)
        assert {core.core: core.calls > 0 for core in model.stats().cores} == {0: True, 1: False, 2: False}
    assert [f"core {core} is left out" in caplog.text for core in (0, 1, 2)] == [False, True, True]


def test_cores_that_fail_later_are_left_out(
    artifact: Path, board: Board, caplog: pytest.LogCaptureFixture
) -> None:
    driver = board()
    with caplog.at_level(logging.WARNING, "tfbert_npu"), load_npu(artifact) as model:
        ask(model, 10)
        driver.faults.failing = lambda core: core > 0
        ask(model, 60)
        errors = {core.core: core.errors for core in model.stats().cores}
        assert errors[0] == 0
        assert errors[1] + errors[2] > 0
    assert driver.open == {}


@pytest.mark.parametrize("warm_up", [True, False])
def test_one_call_in_fifty_that_fails_loses_nothing(artifact: Path, board: Board, warm_up: bool) -> None:
    driver = board()
    chance, lock = random.Random(5), threading.Lock()
    failed: list[int] = []

    def fails(core: int) -> bool:
        with lock:
            if chance.random() < 1 / 50:
                failed.append(core)
                return True
            return False

    with load_npu(artifact, warm_up=warm_up) as model:
        driver.faults.failing = fails
        ask(model, 600)
        assert model.stats().requests == 600
        assert len(failed) > 5
        assert sum(core.replaced for core in model.stats().cores) > 0


def test_all_cores_that_fail_are_an_error_and_then_work_again(artifact: Path, board: Board) -> None:
    driver = board()
    inputs = requests(np.random.default_rng(1), 2, 16)
    with load_npu(artifact) as model:
        driver.faults.failing = lambda core: True
        with pytest.raises(BackendError, match="did not compute"):
            model(inputs)
        driver.faults.failing = lambda core: False
        assert_right(model(inputs), inputs)


def test_the_same_text_twice_costs_no_second_look(artifact: Path, board: Board) -> None:
    driver = board()
    inputs = requests(np.random.default_rng(1), 1, 16)
    with load_npu(artifact, cores=1) as model:
        before = driver.calls_on[0]
        for _ in range(5):
            assert_right(model(inputs), inputs)
        assert driver.calls_on[0] - before == 5


def test_different_inputs_may_have_the_same_outputs(
    artifact: Path, board: Board, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A classifier may answer two texts alike to the bit; the context is looked at, and believed."""
    driver = board()
    with load_npu(artifact, cores=1) as model:
        compute = FakeModel.compute

        def alike(self: FakeModel) -> Compute:
            inner = compute(self)
            # Only the parity of the first id counts, so that every other text has the same outputs.
            return lambda arrays: inner([np.full_like(arrays[0], arrays[0][0, 1] % 2), *arrays[1:]])

        monkeypatch.setattr(FakeModel, "compute", alike)
        for opened in driver.open.values():
            opened.compute = opened.model.compute()
        inputs = requests(np.random.default_rng(1), 1, 16)
        inputs["input_word_ids"][0, 1] = 4
        other = {name: value.copy() for name, value in inputs.items()}
        other["input_word_ids"][0, 1] = 6
        first, again = model(inputs), model(other)
        np.testing.assert_array_equal(again["sequence_output"], first["sequence_output"])
        assert sum(core.errors for core in model.stats().cores) == 0


def test_closed_is_closed_also_for_the_fallback(
    tmp_path: Path, board: Board, monkeypatch: pytest.MonkeyPatch
) -> None:
    driver, encoder = board(), small_encoder()
    closed: list[str] = []
    close = OnnxBackend.close

    def noted(self: OnnxBackend) -> None:
        closed.append(self.name)
        close(self)

    monkeypatch.setattr(OnnxBackend, "close", noted)
    model = load_npu(export_small(encoder, tmp_path / "a"), on_error="onnx")
    inputs = requests(np.random.default_rng(1), 1, 16)
    inputs["input_word_ids"] %= encoder.config.vocab_size
    driver.faults.outputs_code = -1
    model(inputs)
    assert model.runs_on.startswith("onnx (rknn failed")
    assert not closed
    model.close()
    assert closed == ["onnx"]
    with pytest.raises(BackendError, match="the model is closed"):
        model(inputs)


def test_a_context_that_fails_to_close_still_leaves(artifact: Path, board: Board) -> None:
    board()
    model = load_npu(artifact, cores=1)
    pool = model._held.pool
    assert pool is not None
    (worker,) = pool._working

    def fails() -> None:
        raise RuntimeError("the driver is gone")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(threading, "excepthook", lambda arguments: None)
        patch.setattr(RknnBackend, "close", lambda self: fails())
        model.close()
        worker.join(10)
    assert not pool._working


def test_onnx_without_proc_and_affinity(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a system that is no Linux."""
    monkeypatch.setattr(files, "_OPEN_FILES", ("/nowhere",))
    monkeypatch.delattr(os, "sched_getaffinity")
    with load_npu(Path(__file__).parent.parent / "data/v0.1/artifact", "onnx") as model:
        assert model({name: np.ones((1, 4), np.int32) for name in NAMES})["logits"].shape == (1, 3)
