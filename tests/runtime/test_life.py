"""Life and death of a loaded model: forks, exits, leaks, and what the board's path imports."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from tests.runtime.artifacts import requests, write_artifact
from tests.runtime.conftest import Board
from tests.runtime.expected import assert_right
from tfbert_npu.runtime import BackendError, load_npu

ROOT = Path(__file__).resolve().parent.parent.parent

# A board in a process of its own: what `conftest.board` does, without pytest.
SETUP = """
import os, sys, threading
from pathlib import Path
import numpy as np
from tests.runtime.conftest import make_board
from tests.runtime.double import lite
from tests.runtime.double.driver import Driver
from tests.runtime.artifacts import requests
from tests.runtime.expected import assert_right
from tfbert_npu.runtime import soc, load_npu
root, artifact = Path(sys.argv[1]), sys.argv[2]
make_board(root)
soc.ROOT = root
driver = Driver()
sys.modules["rknnlite"] = type(sys)("rknnlite")
sys.modules["rknnlite.api"] = lite.install(driver)
inputs = requests(np.random.default_rng(0), 3, 40)
"""


# The tokenizer alone, before anything of the tests is imported.
TOKENIZER = """
import sys
import psutil
from tfbert_npu import BertTokenizer
from tfbert_npu.runtime import load_npu
tokenizer = BertTokenizer.from_pretrained(sys.argv[2])
own = psutil.Process()
print(own.memory_info().rss // 2**20)
"""


def process(code: str, tmp_path: Path, artifact: Path, first: str = "", limit: float = 60) -> str:
    done = subprocess.run(
        [sys.executable, "-c", first + SETUP + code, str(tmp_path / "board"), str(artifact)],
        cwd=ROOT, capture_output=True, text=True, check=False, timeout=limit,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Traceback" not in done.stderr, done.stderr
    return done.stdout


def test_a_fork_is_told_and_the_parent_goes_on(artifact: Path, tmp_path: Path) -> None:
    code = """
model = load_npu(artifact)
pid = os.fork()
if pid == 0:
    try:
        model(inputs)
    except RuntimeError as error:
        print(error, flush=True)
    model.close()
    os._exit(0)
os.waitpid(pid, 0)
assert_right(model(inputs), inputs)
model.close()
assert driver.open == {}
"""
    assert "loaded before this process was forked; load it in the process that uses it" in process(
        code, tmp_path, artifact
    )


def test_the_interpreter_ends_with_calls_in_progress(artifact: Path, tmp_path: Path) -> None:
    code = """
driver.run_seconds = 0.2
model = load_npu(artifact, warm_up=False)
for _ in range(6):
    threading.Thread(target=model, args=(inputs,), daemon=True).start()
threading.Event().wait(0.1)
print("done")
"""
    assert process(code, tmp_path, artifact) == "done\n"


def test_the_interpreter_ends_with_a_core_that_hangs(artifact: Path, tmp_path: Path) -> None:
    code = """
model = load_npu(artifact, warm_up=False, timeout=None)
driver.faults.hanging = dict.fromkeys(range(3), threading.Event())
threading.Thread(target=model, args=(inputs,), daemon=True).start()
threading.Event().wait(0.1)
print("done")
"""
    assert process(code, tmp_path, artifact) == "done\n"


def test_a_model_that_nobody_holds_is_released(artifact: Path, board: Board) -> None:
    driver = board()
    model = load_npu(artifact)
    assert len(driver.open) == 3
    del model
    gc.collect()
    assert driver.open == {}


def test_descriptors_are_closed(artifact: Path, board: Board) -> None:
    board()
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(3):
        load_npu(artifact, warm_up=False).close()
        with pytest.raises(ValueError, match="cores"):
            load_npu(artifact, cores=9)
    assert len(os.listdir("/proc/self/fd")) == before


def test_release_while_others_call(artifact: Path, board: Board) -> None:
    """Each call is answered rightly or told that the model is closed."""
    driver = board(run_seconds=0.001)
    for seed in range(5):
        model = load_npu(artifact, warm_up=False)
        outcomes: list[str] = []

        def work(seed: int, model: object = model, outcomes: list[str] = outcomes) -> None:
            inputs = requests(np.random.default_rng(seed), 2, 30)
            while True:
                try:
                    assert_right(model(inputs), inputs)  # type: ignore[operator]
                except BackendError as error:
                    outcomes.append(str(error))
                    return

        threads = [threading.Thread(target=work, args=(seed,)) for _ in range(4)]
        for thread in threads:
            thread.start()
        threading.Event().wait(0.05)
        model.close()
        for thread in threads:
            thread.join(20)
        assert len(outcomes) == 4
        assert all("closed" in outcome for outcome in outcomes)
        assert driver.open == {}


@pytest.mark.slow
def test_memory_stays_flat(artifact: Path, tmp_path: Path) -> None:
    """A leak grows in every window; an allocator that takes a page more grows in one of them.

    In a process of its own: what other tests left in this one moves by megabytes of its own accord.
    """
    code = """
import gc, psutil
own = psutil.Process()
rng = np.random.default_rng(0)
batches = [requests(rng, size, width) for size, width in ((1, 16), (5, 64), (3, 30))]
def least_growth(work, times):
    for number in range(times // 10):
        work(number)
    sizes = []
    for window in range(4):
        driver.spans.clear()  # the double's own log
        driver.seen.clear()
        gc.collect()
        sizes.append(own.memory_info().rss)
        for number in range(times if window < 3 else 0):
            work(number)
    return min(np.diff(sizes))
with load_npu(artifact) as model:
    print(least_growth(lambda number: model(batches[number % 3]), 3000))
print(least_growth(lambda number: load_npu(artifact).close(), 150))
assert driver.open == {}
"""
    calls, loads = map(int, process(code, tmp_path, artifact, limit=600).split())
    assert calls < 2**18
    assert loads < 2**19


def test_the_path_of_the_board_is_small(tmp_path: Path) -> None:
    """Tokenizer and runtime, with a model loaded: no TensorFlow, no vendor's toolkit, no Keras."""
    directory = write_artifact(tmp_path / "a", config={**CONFIG_30522})
    (directory / "vocab.txt").write_text(
        "\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *map(str, range(30517))])
    )
    code = """
with load_npu(artifact) as model:
    model(tokenizer(["1 2 3"], seq_length=16))
print(own.memory_info().rss // 2**20)
heavy = {"tensorflow", "keras", "torch", "onnx", "onnxruntime", "huggingface_hub", "transformers", "rich"}
print(*sorted(heavy & set(sys.modules)))
"""
    ready, loaded, heavy = process(code, tmp_path, directory, TOKENIZER).split("\n")[:3]
    assert heavy == ""
    assert int(ready) <= 60
    assert int(loaded) <= 150


CONFIG_30522 = {
    "model_type": "bert", "vocab_size": 30522, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2,
    "intermediate_size": 32, "max_position_embeddings": 128, "type_vocab_size": 2, "hidden_act": "gelu",
}  # fmt: skip
