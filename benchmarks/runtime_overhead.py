"""What the runtime adds to the bare call of a backend, beside the floors measured in the same run.

    python -m benchmarks.runtime_overhead [--rounds 2000]

At 1x128, on a backend that answers at once. Medians of single calls, in microseconds. The floors are what
Python and TensorFlow cost with nothing of ours: an identity function of the same tensors in `tf.function`,
in `tf.py_function`, and in a py_function called eagerly; and a call that another thread answers, without
which a native call that hangs could not be given up.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import queue
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from tests.runtime.artifacts import INPUTS, write_artifact
from tests.runtime.encoders import small_encoder
from tfbert_npu.artifact.hashing import state_sha256
from tfbert_npu.artifact.manifest import TensorSpec
from tfbert_npu.checkpoints.variables import extract, rows_of
from tfbert_npu.runtime import load, rknn, soc
from tfbert_npu.runtime.backend import filled

SHAPE = (1, 128)
RUNTIME, LAYER = "load_npu, one sentence", "delegated layer, tf.function"
HOP, IDENTITY = "floor: another thread answers", "floor: tf.function, identity"
HOP_IN_GRAPH = "floor: tf.function, py_function, another thread"


class Instant:
    """A backend that gives the same outputs at once, or after a fixed time."""

    name = "rknn"
    seconds = 0.0

    def __init__(self, files: Any, platform: Any, core: int | None) -> None:
        self.inputs, self.outputs = files[0].model.inputs, files[0].model.outputs
        self.shapes = files[0].model.shapes
        self._given = {s.name: np.zeros(filled(s, SHAPE), np.float32) for s in self.outputs}

    def run(self, inputs: Any) -> dict[str, np.ndarray]:
        """Give the outputs."""
        if self.seconds:
            time.sleep(self.seconds)
        return self._given

    def close(self) -> None:
        """Nothing is held."""


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=2000)
    rounds = parser.parse_args().rounds
    # As wide as MiniLM and as long as a sentence: what is copied counts.
    encoder = small_encoder(sizes={"hidden_size": 384, "num_attention_heads": 12})
    config = encoder.config.to_huggingface("BertModel")
    hidden = encoder.config.hidden_size
    outputs = (
        TensorSpec("pooled_output", "float32", (-1, hidden)),
        TensorSpec("sequence_output", "float32", (-1, -1, hidden)),
    )
    rknn.RknnBackend = Instant  # type: ignore[misc, assignment]
    rknn.vendor_class = lambda: None  # type: ignore[assignment]
    soc.board_platform = lambda root=None: soc.platform_named("rk3588")
    with tempfile.TemporaryDirectory() as scratch:
        directory = write_artifact(
            Path(scratch) / "a",
            shapes=[SHAPE],
            config=config,
            inputs=INPUTS,
            outputs=outputs,
            source_sha256=state_sha256(extract(encoder, rows_of(encoder))),
        )
        overheads(directory, encoder, rounds)
        scaling(directory)


def overheads(directory: Path, encoder: Any, rounds: int) -> None:
    """Microseconds of single calls, and of the floors beside them."""
    import tensorflow as tf

    inputs = {spec.name: np.ones(SHAPE, np.int32) for spec in INPUTS}
    tensors = {name: tf.constant(value) for name, value in inputs.items()}
    flat = list(tensors.values())
    given = [np.zeros((1, encoder.config.hidden_size), np.float32)]
    given.append(np.zeros((*SHAPE, encoder.config.hidden_size), np.float32))
    dtypes = [tf.float32, tf.float32]

    rows = []
    with load.load_npu(directory, "rknn") as model:
        rows.append((RUNTIME, median(lambda: model(inputs), rounds)))
    with another_thread() as answer:
        rows.append((HOP, median(answer, rounds)))
        handed = tf.function(lambda values: tf.py_function(lambda *_: answer() or given, values, dtypes))
        rows.append((HOP_IN_GRAPH, median(lambda: handed(flat), rounds)))
    identity = tf.function(lambda values: [tf.identity(value) for value in values])
    rows.append((IDENTITY, median(lambda: identity(flat), rounds)))
    bare = tf.function(lambda values: tf.py_function(lambda *_: given, values, dtypes))
    rows.append(("floor: tf.function, py_function", median(lambda: bare(flat), rounds)))
    rows.append(
        ("floor: eager py_function", median(lambda: tf.py_function(lambda *_: given, flat, dtypes), rounds))
    )
    encoder.delegate_to(directory, "rknn")
    call = tf.function(lambda inputs: (lambda o: (o["pooled_output"], o["sequence_output"]))(encoder(inputs)))
    rows.append((LAYER, median(lambda: call(tensors), rounds)))
    rows.append(("delegated layer, eager", median(lambda: encoder(tensors), rounds)))
    encoder.undelegate()
    width = max(len(name) for name, _ in rows)
    for name, value in rows:
        print(f"{name:{width}}  {value:7.0f} us")
    times = dict(rows)
    print(f"load_npu over the backend: {times[RUNTIME]:.0f} us (limit 150)")
    print(f"  over another thread's answer: {times[RUNTIME] - times[HOP]:.0f} us")
    added = times[LAYER] - times[IDENTITY]
    print(f"delegated layer over identity, in tf.function: {added:.0f} us (limit 350)")
    print(f"  over a py_function with another thread's answer: {times[LAYER] - times[HOP_IN_GRAPH]:.0f} us")


@contextlib.contextmanager
def another_thread() -> Iterator[Callable[[], None]]:
    """A function that returns as soon as another thread has answered."""
    asked: queue.SimpleQueue[threading.Lock | None] = queue.SimpleQueue()

    def answer() -> None:
        while (waiting := asked.get()) is not None:
            waiting.release()

    def ask() -> None:
        waiting = threading.Lock()
        waiting.acquire()
        asked.put(waiting)
        waiting.acquire(timeout=30)

    thread = threading.Thread(target=answer)
    thread.start()
    try:
        yield ask
    finally:
        asked.put(None)
        thread.join()


def scaling(directory: Path, seconds: float = 0.01, calls: int = 300) -> None:
    """Calls a second of one core and of three, at a fixed time for each call."""
    rate = {}
    inputs = {spec.name: np.ones((calls, SHAPE[1]), np.int32) for spec in INPUTS}
    Instant.seconds = seconds
    for cores in (1, 3):
        with load.load_npu(directory, "rknn", cores=cores, warm_up=False) as model:
            started = time.perf_counter()
            model(inputs)
            rate[cores] = calls / (time.perf_counter() - started)
    Instant.seconds = 0.0
    print(f"three cores give {rate[3] / rate[1]:.2f} times one ({rate[1]:.0f} and {rate[3]:.0f} calls/s)")


def median(call: Callable[[], Any], rounds: int) -> float:
    """Median time of a call in microseconds, after 50 that do not count."""
    for _ in range(50):
        call()
    times = []
    for _ in range(rounds):
        started = time.perf_counter()
        call()
        times.append(time.perf_counter() - started)
    return statistics.median(times) * 1e6


if __name__ == "__main__":
    main()
