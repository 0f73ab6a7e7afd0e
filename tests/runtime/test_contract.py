"""What the runtime relies on: the same tests on the double, and under emulation on the vendor's real wheel."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.runtime.artifacts import SHAPES, requests, write_artifact, write_foreign
from tests.runtime.conftest import EMULATED, Board
from tests.runtime.expected import assert_right, expected
from tfbert_npu.runtime import BackendError, load_npu, soc
from tfbert_npu.runtime.files import Artifact
from tfbert_npu.runtime.profile import profile
from tfbert_npu.runtime.rknn import core_mask

ROOT = Path(__file__).resolve().parent.parent.parent
ORDER = ("input_word_ids", "input_mask", "input_type_ids")


@pytest.fixture
def driver(board: Board) -> Any:
    return board()


@pytest.fixture
def lite(driver: Any) -> Callable[[], Any]:
    return sys.modules["rknnlite.api"].RKNNLite


@pytest.fixture
def model(artifact: Path) -> str:
    return os.fspath(artifact / "model.rknn")


def arrays(batch: int = 1, width: int = 16, seed: int = 0) -> list[np.ndarray]:
    inputs = requests(np.random.default_rng(seed), batch, width)
    return [inputs[name] for name in ORDER]


def check(values: list[np.ndarray] | None, given: list[np.ndarray]) -> None:
    assert values is not None
    wanted = expected(dict(zip(ORDER, given, strict=True)))
    np.testing.assert_array_equal(values[0], wanted["pooled_output"])
    np.testing.assert_array_equal(values[1], wanted["sequence_output"])
    assert all(value.dtype == np.float32 for value in values)


class TestVendor:
    """The return codes and silences of RKNNLite."""

    def test_the_whole_cycle(self, lite: Any, driver: Any, model: str) -> None:
        context = lite(verbose=False)
        assert context.load_rknn(model) == 0
        assert context.init_runtime(core_mask=2) == 0
        assert [opened.mask for opened in driver.open.values()] == [2]
        for shape in (*SHAPES, SHAPES[0]):
            check(context.inference(inputs=arrays(*shape)), arrays(*shape))
        assert "API: 2.5.0" in context.get_sdk_version()
        context.release()
        assert driver.open == {}
        context.release()

    def test_loading_looks_at_nothing(self, lite: Any, model: str, tmp_path: Path) -> None:
        (tmp_path / "garbage").write_bytes(b"no model")
        context = lite(verbose=False)
        assert context.load_rknn(os.fspath(tmp_path / "garbage")) == 0
        assert context.init_runtime(core_mask=1) == -1
        context.release()
        assert lite(verbose=False).load_rknn(os.fspath(tmp_path / "nothing")) == -1

    def test_every_failing_start_is_minus_one(self, lite: Any, driver: Any, model: str) -> None:
        context = lite(verbose=False)
        assert context.init_runtime(core_mask=1) == -1  # nothing loaded
        assert context.load_rknn(model) == 0
        driver.faults.init_code = -6
        assert context.init_runtime(core_mask=1) == -1
        driver.faults.init_code = 0
        assert context.init_runtime(core_mask=64) == -1
        assert context.init_runtime(target="rk3588", core_mask=1) == -1
        context.release()
        assert driver.open == {}

    def test_every_failing_call_is_none(self, lite: Any, driver: Any, model: str) -> None:
        context = lite(verbose=False)
        assert context.inference(inputs=arrays()) is None
        context.load_rknn(model)
        context.init_runtime(core_mask=1)
        assert context.inference(inputs=arrays(3, 16)) is None  # no compiled shape
        assert context.inference(inputs=[array[0] for array in arrays()]) is None  # another rank
        driver.faults.outputs_code = -1
        assert context.inference(inputs=arrays()) is None
        driver.faults.outputs_code = 0
        check(context.inference(inputs=arrays()), arrays())
        context.release()
        assert context.inference(inputs=arrays()) is None

    def test_the_code_of_a_run_is_ignored(self, lite: Any, driver: Any, model: str) -> None:
        """Why outputs are looked at, and NaN can be: a failed run gives the last call's outputs."""
        context = lite(verbose=False)
        context.load_rknn(model)
        context.init_runtime(core_mask=1)
        check(context.inference(inputs=arrays(seed=1)), arrays(seed=1))
        driver.faults.run_code = -1
        check(context.inference(inputs=arrays(seed=2)), arrays(seed=1))
        context.release()

    def test_ids_keep_their_width(self, lite: Any, driver: Any, model: str) -> None:
        given = arrays()
        given[0][:] = 49_999
        context = lite(verbose=False)
        context.load_rknn(model)
        context.init_runtime(core_mask=1)
        check(context.inference(inputs=given), given)
        assert driver.seen[-3][0][0] == "input_word_ids:int32"
        context.release()

    def test_outputs_are_copies(self, lite: Any, model: str) -> None:
        context = lite(verbose=False)
        context.load_rknn(model)
        context.init_runtime(core_mask=1)
        first = context.inference(inputs=arrays(seed=1))
        context.inference(inputs=arrays(seed=2))
        context.release()
        check(first, arrays(seed=1))

    def test_the_model_is_not_needed_after_the_start(self, lite: Any, model: str) -> None:
        context = lite(verbose=False)
        context.load_rknn(model)
        context.init_runtime(core_mask=1)
        context.rknn_data = None
        check(context.inference(inputs=arrays()), arrays())
        context.release()


class TestRuntime:
    """`load_npu` above it."""

    @pytest.mark.parametrize("layout", ["dynamic", "static"])
    def test_requests(self, board: Board, tmp_path: Path, layout: str) -> None:
        driver = board()
        with load_npu(write_artifact(tmp_path / "b", layout=layout)) as model:
            for seed, (batch, width) in enumerate(((1, 5), (1, 64), (9, 40))):
                inputs = requests(np.random.default_rng(seed), batch, width)
                assert_right(model(inputs), inputs)
        assert driver.open == {}

    @pytest.mark.parametrize("dtype", ["int16", "int64"])
    def test_files_of_rk_transformers(self, board: Board, tmp_path: Path, dtype: str) -> None:
        driver = board()
        with load_npu(write_foreign(tmp_path / "rk", dtype=dtype)) as model:
            inputs = requests(np.random.default_rng(0), 3, 20, vocabulary=30_000)
            assert_right(model(inputs), inputs)
        assert driver.seen[-1][0][0] == f"token_type_ids:{dtype}"

    def test_threads(self, artifact: Path, board: Board) -> None:
        board()
        right = []
        with load_npu(artifact) as model:

            def work(seed: int) -> None:
                rng = np.random.default_rng(seed)
                for _ in range(20):
                    inputs = requests(rng, int(rng.integers(1, 4)), int(rng.integers(1, 65)))
                    assert_right(model(inputs), inputs)
                    right.append(seed)

            threads = [threading.Thread(target=work, args=(seed,)) for seed in range(6)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        assert len(right) == 120

    def test_errors_quote_the_vendor(self, artifact: Path, board: Board) -> None:
        driver = board()
        with load_npu(artifact, cores=1) as model:
            driver.faults.outputs_code = -1
            with pytest.raises(
                BackendError, match=r"the NPU failed at 1x16: .*Get outputs failed, error code"
            ):
                model(requests(np.random.default_rng(0), 1, 16))
        driver.faults.init_code = -6
        with pytest.raises(BackendError, match=r"init_runtime returned -1 .*RKNN init failed. error code"):
            load_npu(artifact)
        assert driver.open == {}

    def test_profile(self, artifact: Path, board: Board) -> None:
        """Times and tables come through the wheel's public handles."""
        driver = board()
        driver.run_microseconds, driver.operator_table = 1875, "ID   OpType\n0   Conv"
        found = profile(Artifact.open(artifact), calls=1)
        assert {one.runtime_ms for one in found.calls} == {1.875}
        assert {one.cores for one in found.calls} >= {"core 0", "core 2", "3 cores on one call"}
        assert found.tables == dict.fromkeys(SHAPES, "ID   OpType\n0   Conv")
        assert driver.open == {}

    @pytest.mark.parametrize("failing", [(1, 2), (0, 1, 2)])
    def test_cores_that_never_compute(self, artifact: Path, board: Board, failing: tuple[int, ...]) -> None:
        """rknn_run fails, the wheel ignores its code, and nobody gets the last call's outputs."""
        driver = board()
        rng = np.random.default_rng(1)
        with load_npu(artifact) as model:
            driver.faults.failing = lambda core: core in failing
            for _ in range(12):
                inputs = requests(rng, int(rng.integers(1, 4)), 16)
                if len(failing) == 3:
                    with pytest.raises(BackendError, match="did not compute"):
                        model(inputs)
                else:
                    assert_right(model(inputs), inputs)
            assert sum(core.errors for core in model.stats().cores) > 0
        assert driver.open == {}

    def test_one_call_in_ten_that_fails(self, artifact: Path, board: Board) -> None:
        driver = board()
        chance, lock = random.Random(5), threading.Lock()

        def fails(core: int) -> bool:
            with lock:
                return chance.random() < 1 / 10

        with load_npu(artifact) as model:
            driver.faults.failing = fails
            for seed in range(60):
                inputs = requests(np.random.default_rng(seed), 1, 16)
                assert_right(model(inputs), inputs)
            assert sum(core.errors for core in model.stats().cores) > 0

    def test_loads_and_releases(self, artifact: Path, board: Board) -> None:
        driver = board()
        inputs = requests(np.random.default_rng(0), 1, 16)
        for _ in range(5 if EMULATED else 300):
            with load_npu(artifact, warm_up=False) as model:
                assert_right(model(inputs), inputs)
        assert driver.open == {}

    def test_the_board(self, board: Board) -> None:
        board()
        platform = soc.board_platform()
        assert platform is not None
        assert platform.name == "rk3588"
        assert [core_mask(platform, core) for core in (None, 0, 1, 2)] == [0, 1, 2, 4]
        with pytest.raises(ValueError, match="has cores 0 to 2, got 3"):
            core_mask(platform, 3)


@pytest.mark.slow
@pytest.mark.skipif(EMULATED, reason="this is what starts the emulation")
def test_the_real_wheel_under_emulation() -> None:
    from tests.runtime.emulation.sysroot import UnavailableError, sysroot

    try:
        made = sysroot()
    except UnavailableError as reason:
        pytest.skip(f"no emulation: {reason}")
    here = os.fspath(Path(__file__).relative_to(ROOT))
    options = ("-m", "pytest", "-q", "-p", "no:cacheprovider", "-o", "addopts=", "-o", "timeout=0", here)
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": os.environ.get("HOME", "/"),
        "PYTHONPATH": os.pathsep.join([os.fspath(ROOT), os.fspath(made.packages)]),
        "PYTHONDONTWRITEBYTECODE": "1",
        "TFBERT_NPU_EMULATED": "1",
    }
    done = subprocess.run(
        made.command(*options),
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=800,
    )
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    assert "skipped" in done.stdout
    assert " passed" in done.stdout
