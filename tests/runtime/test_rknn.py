"""`load_npu` on a doubled board."""

from __future__ import annotations

import re
import threading
from pathlib import Path

import numpy as np
import pytest

from tests.runtime.artifacts import requests, write_artifact
from tests.runtime.conftest import Board
from tests.runtime.expected import assert_right
from tfbert_npu.errors import ArtifactError
from tfbert_npu.runtime import BackendError, BackendTimeoutError, load_npu


@pytest.mark.parametrize("layout", ["dynamic", "static"])
@pytest.mark.parametrize(("soc_name", "cores"), [("rk3588", 3), ("rk3576", 2), ("rk3568", 1)])
def test_requests_of_any_size(tmp_path: Path, board: Board, layout: str, soc_name: str, cores: int) -> None:
    driver = board(soc_name, cores=cores)
    directory = write_artifact(tmp_path / "a", layout=layout, platform=soc_name)
    rng = np.random.default_rng(0)
    with load_npu(directory) as model:
        assert model.runs_on == "rknn"
        assert model.contexts == cores
        assert len(driver.open) == cores * (4 if layout == "static" else 1)
        masks = {opened.mask for opened in driver.open.values()}
        assert masks == ({0} if cores == 1 else {1 << core for core in range(cores)})
        for batch, width in ((1, 1), (1, 16), (1, 64), (2, 40), (7, 16), (23, 64), (0, 16), (3, 100)):
            inputs = requests(rng, batch, width)
            if width == 100:
                inputs = {
                    name: value * (np.arange(100) < 60).astype(np.int32) for name, value in inputs.items()
                }
            assert_right(model(inputs), inputs)
        stats = model.stats()
        assert stats.errors == 0
        assert stats.texts == 1 + 1 + 1 + 2 + 7 + 23 + 3
        assert [core.core for core in stats.cores] == list(range(cores))
        assert stats.computed_tokens == sum(core.computed_tokens for core in stats.cores)
    assert driver.open == {}


def test_one_of_several_files(tmp_path: Path, board: Board) -> None:
    board()
    directory = write_artifact(tmp_path / "a", layout="static")
    with load_npu(directory, file="model_b1_s32.rknn") as model:
        assert model.shapes == ((1, 32),)
        inputs = requests(np.random.default_rng(0), 2, 20)
        assert_right(model(inputs), inputs)
    with pytest.raises(
        ArtifactError, match=r"no .rknn file 'model.rknn'; it has model_b1_s16.rknn, model_b4"
    ):
        load_npu(directory, file="model.rknn")


def test_a_large_id_is_not_narrowed(artifact: Path, board: Board) -> None:
    driver = board()
    with load_npu(artifact, cores=1) as model:
        ids = np.full((1, 16), 49_999, np.int64)
        inputs = {
            "input_word_ids": ids,
            "input_mask": np.ones_like(ids),
            "input_type_ids": np.zeros_like(ids),
        }
        assert_right(model(inputs), {name: value.astype(np.int32) for name, value in inputs.items()})
    assert driver.seen[-1][0][0].endswith(":int32")


def test_arrays_of_any_layout_in_memory(artifact: Path, board: Board) -> None:
    board()
    rng = np.random.default_rng(1)
    inputs = requests(rng, 1, 16)
    with load_npu(artifact, cores=1) as model:
        strided = {name: np.repeat(value, 2, axis=1)[:, ::2] for name, value in inputs.items()}
        assert_right(model(strided), inputs)
        assert_right(
            model({name: np.asfortranarray(np.vstack([value] * 4)) for name, value in inputs.items()}),
            {name: np.vstack([value] * 4) for name, value in inputs.items()},
        )


def test_eight_threads(artifact: Path, board: Board) -> None:
    driver = board()
    failures: list[BaseException] = []
    with load_npu(artifact) as model:

        def work(seed: int) -> None:
            rng = np.random.default_rng(seed)
            try:
                for _ in range(500):
                    inputs = requests(rng, int(rng.integers(1, 6)), int(rng.integers(1, 65)))
                    assert_right(model(inputs), inputs)
            except Exception as error:  # noqa: BLE001 - shown by the assertion below
                failures.append(error)

        threads = [threading.Thread(target=work, args=(seed,)) for seed in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert failures == []
        stats = model.stats()
        assert stats.requests == 4000
        assert all(core.calls > 0 for core in stats.cores)
    assert driver.open == {}


def test_a_text_that_is_too_long(artifact: Path, board: Board) -> None:
    board()
    inputs = {
        name: np.ones((2, 100), np.int32) for name in ("input_word_ids", "input_mask", "input_type_ids")
    }
    inputs["input_word_ids"][:, :] = np.arange(100, 200)
    with (
        load_npu(artifact) as model,
        pytest.raises(ValueError, match="100 tokens and the longest compiled shape takes 64"),
    ):
        model(inputs)
    with load_npu(artifact, truncate=True) as model:
        outputs = model(inputs)
        assert outputs["sequence_output"].shape == (2, 100, 16)
        cut = {name: np.concatenate([value[:, :63], value[:, 99:]], axis=1) for name, value in inputs.items()}
        np.testing.assert_array_equal(outputs["pooled_output"], model(cut)["pooled_output"])
        assert inputs["input_word_ids"][0, 63] == 163  # the caller's own array is as it was


@pytest.mark.parametrize(
    ("faults", "message"),
    [
        ({"outputs_code": -1}, "the NPU failed at 1x16: RuntimeError: E Get outputs failed"),
        ({"lost_dimension": True}, r"gave pooled_output as float32 \(16,\) instead of float32 \(1, 16\)"),
        ({"not_a_number": True}, "pooled_output holds NaN or infinity"),
    ],
)
def test_failing_calls(artifact: Path, board: Board, faults: dict[str, object], message: str) -> None:
    driver = board()
    inputs = requests(np.random.default_rng(2), 1, 16)
    with load_npu(artifact, check_finite=True) as model:
        for name, value in faults.items():
            setattr(driver.faults, name, value)
        with pytest.raises(BackendError, match=message):
            model(inputs)
        for name in faults:
            setattr(driver.faults, name, False if name != "outputs_code" else 0)
        assert_right(model(inputs), inputs)


def test_a_failing_start_leaves_nothing(artifact: Path, board: Board) -> None:
    driver = board()
    driver.faults.init_code = -1
    with pytest.raises(BackendError, match=r"init_runtime returned -1 for .*model.rknn .*error code: -1"):
        load_npu(artifact)
    assert driver.open == {}


def test_a_shape_that_does_not_follow(artifact: Path, board: Board) -> None:
    """Should librknnrt describe the first shape only, the warm-up says so instead of the user's data."""
    driver = board(follows_shape=False)
    with pytest.raises(BackendError, match="gave pooled_output as"):
        load_npu(artifact)
    assert driver.open == {}


def test_an_old_runtime(artifact: Path, board: Board) -> None:
    driver = board(version="2.3.2")
    with pytest.raises(BackendError, match=r"compiled by toolkit 2.5.0 and this board's librknnrt is 2.3.2"):
        load_npu(artifact)
    assert driver.inits == 0  # no native code has seen the file


def test_another_soc(tmp_path: Path, board: Board) -> None:
    driver = board("rk3576")
    with pytest.raises(
        ArtifactError,
        match=r"is for rk3588 and this board is rk3576; export it with target_platform='rk3576'",
    ):
        load_npu(write_artifact(tmp_path / "a"))
    assert driver.inits == 0
    board("rk3566", cores=1)
    load_npu(write_artifact(tmp_path / "twin", platform="rk3568")).close()


def test_damaged_files_never_reach_the_driver(artifact: Path, board: Board) -> None:
    driver = board()
    path = artifact / "model.rknn"
    good = path.read_bytes()
    for bad, message in (
        (good[:-1], "bytes, not the"),
        (good[:100] + bytes([good[100] ^ 1]) + good[101:], "is not the file that was exported"),
        (bytes(len(good)), "is not the file that was exported"),
    ):
        path.write_bytes(bad)
        with pytest.raises(ArtifactError, match=message):
            load_npu(artifact)
    path.unlink()
    with pytest.raises(ArtifactError, match="is missing"):
        load_npu(artifact)
    assert driver.inits == 0


def test_a_hanging_core_is_replaced_and_the_call_answered(artifact: Path, board: Board) -> None:
    driver = board()
    rng = np.random.default_rng(3)
    stuck = threading.Event()
    try:
        with load_npu(artifact, timeout=0.3) as model:
            driver.faults.hanging[1] = stuck
            answered = []

            def work(seed: int) -> None:
                inputs = requests(np.random.default_rng(seed), 1, 16)
                assert_right(model(inputs), inputs)
                while not model.stats().cores[1].replaced:  # until the hanging core has taken one
                    assert_right(model(inputs), inputs)
                answered.append(seed)

            threads = [threading.Thread(target=work, args=(seed,)) for seed in range(6)]
            for thread in threads:
                thread.start()
            while not model.stats().cores[1].replaced:
                threading.Event().wait(0.01)
            driver.faults.hanging.clear()  # what hangs goes on hanging; the core's new context works
            stuck.set()
            for thread in threads:
                thread.join()
            assert sorted(answered) == list(range(6))
            assert model.stats().cores[1].replaced == 1
            inputs = requests(rng, 9, 16)
            assert_right(model(inputs), inputs)
    finally:
        stuck.set()


def test_a_call_that_hangs_everywhere_fails(artifact: Path, board: Board) -> None:
    driver = board()
    stuck = threading.Event()
    with load_npu(artifact, timeout=0.1, warm_up=False) as model:
        driver.faults.hanging = dict.fromkeys(range(3), stuck)
        with pytest.raises(BackendTimeoutError, match=r"longer than 0.1 s on 2 contexts"):
            model(requests(np.random.default_rng(4), 1, 16))
        stuck.set()


def test_no_context_free_in_time(artifact: Path, board: Board) -> None:
    driver = board()
    stuck = threading.Event()
    inputs = requests(np.random.default_rng(4), 1, 16)
    with load_npu(artifact, timeout=None, lend_timeout=0.2, cores=1) as model:
        driver.faults.hanging[0] = stuck
        thread = threading.Thread(target=model, args=(inputs,))
        thread.start()
        while not driver._cores[0].locked():
            threading.Event().wait(0.01)
        with pytest.raises(BackendTimeoutError, match=r"no context was free within 0.2 s"):
            model(inputs)
        driver.faults.hanging.clear()
        stuck.set()
        thread.join()
        assert_right(model(inputs), inputs)


def test_close_waits_for_calls_in_progress(artifact: Path, board: Board) -> None:
    driver = board(run_seconds=0.2)
    model = load_npu(artifact, cores=1, warm_up=False)
    inputs = requests(np.random.default_rng(5), 1, 16)
    answered = []
    thread = threading.Thread(target=lambda: answered.append(model(inputs)))
    thread.start()
    while not driver._cores[0].locked():
        threading.Event().wait(0.005)
    model.close()
    thread.join()
    assert_right(answered[0], inputs)
    assert driver.open == {}
    with pytest.raises(BackendError, match="is closed"):
        model(inputs)
    model.close()


def test_the_artifact_replaced_while_loaded(artifact: Path, board: Board, tmp_path: Path) -> None:
    driver = board()
    stuck = threading.Event()
    inputs = requests(np.random.default_rng(6), 1, 16)
    with load_npu(artifact, timeout=0.2, cores=1) as model:
        artifact.rename(tmp_path / "old")
        write_artifact(artifact, platform="rk3576")
        driver.faults.hanging[0] = stuck
        # The first attempt hangs, is given up, and the new context is made from the file that was checked.
        threading.Timer(0.3, lambda: (driver.faults.hanging.clear(), stuck.set())).start()
        assert_right(model(inputs), inputs)
        assert model.stats().cores[0].replaced == 1


def test_the_artifact_overwritten_while_loaded(artifact: Path, board: Board) -> None:
    driver = board()
    stuck = threading.Event()
    inputs = requests(np.random.default_rng(6), 1, 16)
    with load_npu(artifact, timeout=0.1, cores=1) as model:
        with open(artifact / "model.rknn", "r+b") as stream:
            stream.seek(80)
            stream.write(b"x")
        driver.faults.hanging[0] = stuck
        with pytest.raises(BackendError, match="was changed while it was in use"):
            model(inputs)
        stuck.set()


@pytest.mark.parametrize("cores", [0, 4, (0, 0), (3,), (), "all"])
def test_impossible_cores(artifact: Path, board: Board, cores: object) -> None:
    board()
    with pytest.raises(ValueError, match="cores"):
        load_npu(artifact, cores=cores)  # type: ignore[arg-type]


def test_one_core_by_number(artifact: Path, board: Board) -> None:
    driver = board()
    with load_npu(artifact, cores=[2]) as model:
        inputs = requests(np.random.default_rng(7), 5, 64)
        assert_right(model(inputs), inputs)
    assert set(driver.calls_on) == {2}


def test_too_little_memory(artifact: Path, board: Board, tmp_path: Path) -> None:
    board()
    (tmp_path / "board" / "proc" / "meminfo").write_text("MemTotal: 1 kB\nMemAvailable: 1 kB\n")
    with pytest.raises(BackendError, match=r"3 contexts need about .* use fewer cores"):
        load_npu(artifact)


def test_no_board_and_no_runtime(artifact: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tfbert_npu.runtime import soc

    monkeypatch.setattr(soc, "ROOT", tmp_path / "nothing")
    with pytest.raises(BackendError, match="pip install rknn-toolkit-lite2"):
        load_npu(artifact, backend="rknn")
    with pytest.raises(ArtifactError, match="holds no ONNX file"):
        load_npu(artifact)


def test_unknown_options(artifact: Path) -> None:
    known = "('auto', 'rknn', 'simulator', 'onnx', 'openvino')"
    with pytest.raises(ValueError, match=re.escape(f"backend must be one of {known}, got 'npu'")):
        load_npu(artifact, backend="npu")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="on_error must be one of"):
        load_npu(artifact, on_error="tf")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="timeout must be more than 0"):
        load_npu(artifact, timeout=0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"input_word_ids": None}, "lack input_word_ids"),
        ({"input_word_ids": np.full((1, 4), 50_000)}, "the vocabulary has 0 to 49999"),
        ({"input_mask": np.ones((1, 5), np.int32)}, "must be alike"),
        ({"input_type_ids": np.zeros((1, 4))}, "must hold integers"),
    ],
)
def test_wrong_inputs(artifact: Path, board: Board, change: dict[str, object], message: str) -> None:
    driver = board()
    inputs: dict[str, object] = {
        name: np.ones((1, 4), np.int32) for name in ("input_word_ids", "input_mask", "input_type_ids")
    }
    inputs.update(change)
    with load_npu(artifact, warm_up=False) as model, pytest.raises(ValueError, match=message):
        model({name: value for name, value in inputs.items() if value is not None})
    assert driver.calls_on == {}
