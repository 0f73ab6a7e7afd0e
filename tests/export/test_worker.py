"""The vendor's process, with a fake vendor that fails in each of the ways of the real one."""

from __future__ import annotations

import os
import signal
import sys
import textwrap
import threading
import time
from pathlib import Path

import numpy as np
import psutil
import pytest

from tfbert_npu.rknn.toolchain import Toolchain
from tfbert_npu.rknn.worker import Limits, VendorSession, WorkerError

FAKE = """
import os, signal, sys, time
import numpy as np

class RKNN:
    def __init__(self, verbose):
        print("I rknn-toolkit2 version: 0", flush=True)
    def config(self, **options):
        self.options = options
    def load_onnx(self, model, **options):
        return 0
    def build(self, **options):
        print("\\x1b[1;31mE\\x1b[0m \\x1b[1;31mbuild: no such layer\\x1b[0m", flush=True)
        how = self.options["how"]
        if how == "raise":
            raise ValueError("Traceback\\n  line 3\\nValueError: no such layer")
        if how == "code":
            return -1
        if how == "none":
            return None
        if how == "exit":
            sys.exit(3)
        if how == "hard exit":
            os._exit(7)
        if how == "signal":
            os.kill(os.getpid(), signal.SIGILL)
        if how == "sleep":
            time.sleep(60)
        if how == "memory":
            self.ballast = bytearray(os.urandom(1) * 400_000_000)
            time.sleep(60)
        os.environ.pop("TMPDIR", None)
        open("check.onnx", "w").close()
        return 0
    def init_runtime(self):
        return 0
    def inference(self, inputs):
        return None if self.options["how"] == "no result" else [inputs[0] * 2.0, inputs[1] + 1]
    def export_rknn(self, path):
        if self.options["how"] != "no file":
            open(path, "w").write("x")
        return 0
    def accuracy_analysis(self, inputs, output_dir):
        os.makedirs(output_dir)
        open(os.path.join(output_dir, "error_analysis.txt"), "w").write(",".join(map(os.path.basename, inputs)))
        return 0
    def release(self):
        pass
"""


@pytest.fixture
def session(tmp_path):
    """Opens sessions with the fake vendor."""
    package = tmp_path / "fake" / "rknn"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "api.py").write_text(textwrap.dedent(FAKE))
    toolchain = Toolchain(Path(sys.executable), "0", None, "3", "x86_64")
    opened = []

    def start(limits: Limits | None = None, name: str = "log") -> VendorSession:
        one = VendorSession(toolchain, tmp_path / name, limits, tmp_path, tmp_path / "fake")
        opened.append(one)
        return one

    yield start
    for one in opened:
        one.close()


@pytest.mark.parametrize(
    ("how", "kind", "message"),
    [
        ("raise", "exception", "failed in build: ValueError: no such layer; see "),
        ("code", "return code", "build returned -1: build: no such layer; see "),
        ("none", "none", "build returned nothing"),
        ("exit", "exit", r"called exit\(3\)"),
        ("hard exit", "death", "ended with code 7 in build"),
        ("signal", "death", "was killed by SIGILL in build: build: no such layer; see "),
    ],
)
def test_each_way_to_fail_becomes_one_error_with_the_log(session, how, kind, message, tmp_path):
    with session() as one, pytest.raises(WorkerError, match=message) as caught:
        one.build("model.onnx", {"how": how})
    assert caught.value.kind == kind
    assert caught.value.log == tmp_path / "log"
    assert "no such layer" in caught.value.log.read_text()
    assert "\n" not in str(caught.value)


def test_a_failure_that_is_none_but_a_result_of_none_is_an_error(session):
    with session() as one:
        one.build("model.onnx", {"how": "no result"})
        with pytest.raises(WorkerError, match="returned no result"):
            one.infer([np.zeros(2), np.zeros(2)])
        one.build("model.onnx", {"how": "no file"})
        with pytest.raises(WorkerError, match="wrote no file"):
            one.export("nowhere.rknn")


def test_arrays_keep_order_and_dtype_and_the_scratch_directory_is_the_working_directory(session, tmp_path):
    with session() as one:
        printed = one.build("model.onnx", {"how": "well"})
        assert "no such layer" in printed
        doubled, plus = one.infer([np.arange(3, dtype=np.int32), np.ones(2, np.float32)])
        np.testing.assert_array_equal(doubled, [0, 2, 4])
        assert plus.dtype == np.float32
        one.export(tmp_path / "out.rknn")
        table = one.analyze([np.zeros(1), np.zeros(1)], tmp_path / "analysis")
        assert table.read_text() == "analysis_0.npy,analysis_1.npy"
        assert one.peak_memory > 0
        assert not Path("check.onnx").exists()
        assert [path for path in tmp_path.iterdir() if path.name.startswith(".tfbert-npu.")]
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".tfbert-npu.")]
    assert (tmp_path / "out.rknn").is_file()


def test_calibration_samples_are_written_as_the_vendor_reads_them(session):
    with session() as one:
        path = one.write_dataset([[np.zeros((1, 4), np.int32), np.ones((1, 4))], [np.ones(1), np.ones(1)]])
        lines = path.read_text().splitlines()
        assert [len(line.split()) for line in lines] == [2, 2]
        first = np.load(lines[0].split()[0])
        assert first.shape == (1, 4)
        assert first.dtype == np.int32


def test_time_limit_ends_the_process(session):
    one = session(Limits(seconds=1.0))
    with pytest.raises(WorkerError, match="longer than 1 s in build") as caught:
        one.build("model.onnx", {"how": "sleep"})
    assert caught.value.kind == "timeout"
    assert not psutil.pid_exists(one._process.pid) or one._process.poll() is not None


def test_memory_limit_ends_the_process(session):
    one = session(Limits(memory=300_000_000))
    with pytest.raises(WorkerError, match=r"more than the limit of 0\.3") as caught:
        one.build("model.onnx", {"how": "memory"})
    assert caught.value.kind == "memory"
    assert one._process.poll() is not None


def test_a_killed_worker_is_reported(session):
    one = session()
    one.build("model.onnx", {"how": "well"})
    threading.Timer(0.5, os.kill, (one._process.pid, signal.SIGKILL)).start()
    with pytest.raises(WorkerError, match=r"killed by SIGKILL .*ran out of memory"):
        one.build("model.onnx", {"how": "sleep"})


def test_interrupting_the_caller_ends_the_process_and_its_scratch_directory(session, tmp_path):
    one = session()
    # A shell starts its background jobs with SIGINT ignored, and Python then leaves it so.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    threading.Timer(1.0, os.kill, (os.getpid(), signal.SIGINT)).start()
    try:
        with pytest.raises(KeyboardInterrupt), one:
            one.build("model.onnx", {"how": "sleep"})
    finally:
        signal.signal(signal.SIGINT, before)
    assert one._process.poll() is not None
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".tfbert-npu.")]


def test_the_process_dies_with_its_parent(session, tmp_path):
    import subprocess

    script = textwrap.dedent(
        f"""
        import os, signal, sys, threading
        from pathlib import Path
        from tfbert_npu.rknn.toolchain import Toolchain
        from tfbert_npu.rknn.worker import VendorSession
        one = VendorSession(Toolchain(Path(sys.executable), "0", None, "3", "x"), {str(tmp_path / "l")!r}, None,
                            {str(tmp_path)!r}, {str(tmp_path / "fake")!r})
        one.build("m.onnx", {{"how": "well"}})
        print(one._process.pid, flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
        """
    )
    session()  # makes the fake vendor
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    pid = int(done.stdout)
    for _ in range(100):
        if not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
            break
        time.sleep(0.1)
    else:
        pytest.fail("the vendor's process outlived its parent")


def test_sessions_run_side_by_side(session):
    with session(name="a") as first, session(name="b") as second:
        first.build("model.onnx", {"how": "well"})
        second.build("model.onnx", {"how": "well"})
        assert first._process.pid != second._process.pid
        np.testing.assert_array_equal(first.infer([np.ones(1), np.ones(1)])[0], [2.0])
        np.testing.assert_array_equal(second.infer([np.ones(2), np.ones(1)])[0], [2.0, 2.0])


def test_a_toolchain_that_cannot_import_the_vendor_says_so(tmp_path):
    empty = tmp_path / "empty"
    empty.mkdir()
    toolchain = Toolchain(Path(sys.executable), "0", None, "3", "x86_64")
    with (
        VendorSession(toolchain, tmp_path / "log", None, tmp_path, empty) as one,
        pytest.raises(WorkerError, match="importing rknn failed: No module named 'rknn'"),
    ):
        one.build("model.onnx", {})


def test_a_closed_session_refuses(session):
    one = session()
    one.build("model.onnx", {"how": "well"})
    one.close()
    one.close()
    with pytest.raises(WorkerError, match="closed"):
        one.build("model.onnx", {"how": "well"})
