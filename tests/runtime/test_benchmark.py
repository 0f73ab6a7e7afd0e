"""`benchmark` on the double with a fixed time a call and core: what it prints is what the double took."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from tests.runtime.artifacts import SHAPES, write_artifact
from tests.runtime.conftest import Board, make_board
from tests.runtime.double.driver import Driver
from tests.runtime.encoders import export_small, small_encoder
from tfbert_npu import tasks
from tfbert_npu.cli import cli
from tfbert_npu.runtime import soc

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"abcdefghijklmnopqrstuvwxyz"]
SECONDS = 0.15


@pytest.fixture
def artifact(tmp_path: Path) -> Path:
    directory = write_artifact(tmp_path / "artifact", shapes=SHAPES)
    (directory / "vocab.txt").write_text("\n".join(WORDS) + "\n")
    (directory / "tokenizer_config.json").write_text('{"do_lower_case": true}')
    return directory


def within(printed: float, took: float) -> bool:
    return abs(printed / took - 1) < 0.05


def last(driver: Driver, calls: int) -> np.ndarray:
    return np.array(driver.spans[-calls:])


@pytest.mark.parametrize("instances", [1, 3])
def test_latency_and_throughput_are_those_of_the_double(artifact: Path, board: Board, instances: int) -> None:
    driver = board(run_seconds=SECONDS)
    calls = 6 * instances
    found = tasks.benchmark(artifact, instances=[instances], shape=(1, 64), requests=calls, rounds=1)
    (one,) = found.timings
    spans = last(driver, calls)
    assert (one.requests, one.texts, one.tokens, one.padding_share) == (calls, calls, 64 * calls, 0.0)
    assert within(one.p50_ms / 1e3, float(np.median(spans[:, 1] - spans[:, 0])))
    assert within(one.texts_per_second, calls / (spans[:, 1].max() - spans[:, 0].min()))
    assert one.tokens_per_second == pytest.approx(64 * one.texts_per_second)


def test_three_contexts_and_one_in_turns(artifact: Path, board: Board) -> None:
    driver = board(run_seconds=SECONDS)
    arguments = ["benchmark", str(artifact), "--instances", "1", "--instances", "3", "--shape", "1x16"]
    result = CliRunner().invoke(cli, [*arguments, "--requests", "12", "--rounds", "2", "--json"])
    assert result.exit_code == 0, result.exception
    found = json.loads(result.stdout)
    one, three = found["timings"]
    assert (one["ratio"], one["instances"], three["instances"]) == (1.0, 1, 3)
    assert three["ratio"] == pytest.approx(2.95, abs=0.1)
    assert three["ratio_range"][0] <= three["ratio"] <= three["ratio_range"][1]
    assert sum(driver.calls_on.values()) >= 24
    assert found["peak_memory_mb"] > 0


def test_padding_of_real_texts(artifact: Path, board: Board, tmp_path: Path) -> None:
    """3 and 20 tokens at the shapes 1x16 and 1x32."""
    board()
    (tmp_path / "texts").write_text("a\n" + "b " * 18 + "\n")
    arguments = ["benchmark", str(artifact), "--texts", str(tmp_path / "texts"), "--requests", "10"]
    result = CliRunner().invoke(cli, [*arguments, "--json"])
    assert result.exit_code == 0, result.exception
    (one,) = json.loads(result.stdout)["timings"]
    assert one["padding_share"] == pytest.approx(1 - 23 / 48)
    assert one["texts"] == 10


def test_clocks_and_temperatures_of_a_board(
    artifact: Path, board: Board, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    board()
    root = tmp_path / "board"
    make_board(root)
    monkeypatch.setattr(soc, "ROOT", root)
    for name, values in {
        "sys/class/devfreq/fdab0000.npu": {"governor": "userspace", "cur_freq": 10**9, "max_freq": 10**9},
        "sys/class/thermal/thermal_zone0": {"type": "npu-thermal", "temp": 43000},
    }.items():
        (root / name).mkdir(parents=True)
        for file, value in values.items():
            (root / name / file).write_text(f"{value}\n")
    result = CliRunner().invoke(cli, ["benchmark", str(artifact), "--duration", "0.2", "--rounds", "2"])
    assert result.exit_code == 0, result.exception
    assert "fdab0000.npu: 1000 of 1000 MHz, governor userspace" in result.stdout
    assert "npu-thermal: 43.0 to 43.0 °C" in result.stdout
    assert "rknn" in result.stdout


def test_sessions_of_the_cpu_beside_tensorflow(tmp_path: Path) -> None:
    encoder = small_encoder()
    encoder.save_pretrained(tmp_path / "checkpoint")
    export_small(encoder, tmp_path / "artifact")
    for name in ("checkpoint", "artifact"):
        (tmp_path / name / "vocab.txt").write_text("\n".join(WORDS) + "\n")
        (tmp_path / name / "tokenizer_config.json").write_text('{"do_lower_case": true}')
    models = [tmp_path / "checkpoint", tmp_path / "artifact"]
    found = tasks.benchmark(models, instances=(1, 2), texts=["a b", "c"], batch=2, threads=1, requests=10)
    rows = [(one.backend, one.instances, one.texts) for one in found.timings]
    assert rows == [("tf", 1, 20), ("tf", 2, 20), ("onnx", 1, 20), ("onnx", 2, 20)]
    assert all(one.p50_ms <= one.p95_ms <= one.p99_ms for one in found.timings)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"backends": ["simulator"]}, "the simulator's time says nothing of an NPU"),
        ({"texts": ["a"], "shape": (1, 16)}, "give texts, at least one, or a shape, not both"),
        ({"texts": []}, "give texts, at least one"),
        ({"requests": 9, "duration": 1.0}, "give requests or duration, not both"),
        ({"requests": 2, "rounds": 5}, "2 requests are fewer than the 5 rounds"),
        ({"rounds": 0}, "rounds must be at least 1"),
        ({"shape": (1, 16), "batch": 2}, "batch is for texts"),
    ],
)
def test_what_cannot_be_timed(tmp_path: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        tasks.benchmark(tmp_path, **options)


def test_the_command_refuses_the_simulator(tmp_path: Path) -> None:
    result = CliRunner().invoke(cli, ["benchmark", str(tmp_path), "--backend", "simulator"])
    assert result.exit_code == 2
