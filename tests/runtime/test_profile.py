"""`profile` on the double with scripted times, and librknnrt's table as boards print it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from benchmarks.fit_time_model import work_of_row
from tests.runtime.artifacts import SHAPES, change_manifest, write_artifact
from tests.runtime.conftest import Board
from tfbert_npu.cli import cli
from tfbert_npu.platforms import platform_named
from tfbert_npu.rknn.cost import Cost
from tfbert_npu.rknn.perf_table import parse_perf_table
from tfbert_npu.rknn.profile import profile
from tfbert_npu.rknn.time_model import Prediction
from tfbert_npu.runtime import BackendError, soc
from tfbert_npu.runtime.files import Artifact

# In the form of profiles that others published (rknn_model_zoo issue 366 and toolkit 2.3.0's): the use of MACs
# may be empty, and newer versions count tasks.
TABLE = """
ID   OpType             DataType Target InputShape                               OutputShape            \
Cycles(DDR/NPU/Total)    Time(us)     MacUsage(%)          WorkLoad(0/1/2)      RW(KB)       FullName
0    InputOperator      FLOAT16  CPU    \\                                        (1,384,1,64)           \
0/0/0                    4                                 0.0%/0.0%/0.0%       48           InputOperator:x
1    exSDPAttention     FLOAT16  NPU    (12,32,1,64),(12,32,1,64),...            (12,32,1,64)           \
0/0/0                    391                               100.0%/0.0%/0.0%     192          \
exSDPAttention:/layer.0/sdpa
2    ConvExGelu         FLOAT16  NPU    (1,384,1,64),(1536,384,1,1),(1536)       (1,1536,1,64)          \
217017/1253376/1253376   150          56.64/0.00/0.00      100.0%/0.0%/0.0%     1929.5       Conv:/layer.0/dense
3    exNorm             FLOAT16  NPU    (1,384,1,64),(1,384,1,1),...             (1,384,1,64)           \
0/0/0                    66                                100.0%/0.0%/0.0%     7            96           \
exNorm:/layer.0/norm
4    OutputOperator     FLOAT16  CPU    (1,384,1,64)                             \\                      \
0/0/0                    23           \\                    0.0%/0.0%/0.0%       112          OutputOperator:y
Total Operator Elapsed Per Frame Time(us): 634
"""


@pytest.fixture
def artifact(tmp_path: Path) -> Path:
    directory = write_artifact(tmp_path / "artifact", shapes=SHAPES)
    prediction = Prediction(7.1, 0.7, "fast", {"attention": 0.4}, (), calibrated=True).as_dict()
    counted = Cost((), 0, 0).summary(platform_named("rk3588"))
    change_manifest(directory, cost={"1x64": {**counted, "predicted": prediction}})
    return directory


def test_the_table_of_a_board() -> None:
    rows = parse_perf_table(TABLE)
    assert [row.microseconds for row in rows] == [4, 391, 150, 66, 23]
    assert [row.kind for row in rows] == [None, "attention", "product", "norm", None]
    assert rows[2].operator.name == "/layer.0/dense"
    assert rows[2].operator.cycles == 1_253_376


@pytest.mark.parametrize(
    ("place", "op", "shapes"),
    [
        (1, "exSDPAttention", [12, 32, 64, 64]),
        (2, "ConvExGelu", [64, 384, 1536]),
        (3, "exNorm", [24_576]),
        (4, "OutputOperator", [24_576]),
    ],
)
def test_a_row_is_one_of_the_timing_table(place: int, op: str, shapes: list[int]) -> None:
    """The script that fits the time model takes it."""
    row = parse_perf_table(TABLE)[place].timing_row()
    assert (row["op"], row["shapes"], row["dtype"]) == (op, shapes, "float16")
    work = work_of_row({**row, "npu_mhz": 1000})
    assert (work is None) == (op == "OutputOperator")


def test_every_core_alone_and_all_together(artifact: Path, board: Board) -> None:
    driver = board(run_seconds=0.002)
    driver.run_microseconds, driver.operator_table = 1875, TABLE
    found = profile(Artifact.open(artifact), calls=5)
    names = ["core 0", "core 1", "core 2", "3 cores at once", "3 cores on one call"]
    assert {(one.shape, one.cores) for one in found.calls} == {(s, name) for s in SHAPES for name in names}
    for one in found.calls:
        assert one.calls == (15 if one.cores == "3 cores at once" else 5)
        assert one.runtime_ms == 1.875
        assert one.wall_ms >= 2  # the double sleeps as long
        assert 0 < one.calls_per_second < 1500  # of three cores that sleep 2 ms a call
    assert driver.open == {}
    report = found.as_dict()
    assert report["tag"] == "board"
    assert report["by_kind"]["1x16"] == pytest.approx(
        {"other": 0.027, "attention": 0.391, "product": 0.15, "norm": 0.066}
    )
    assert len(report["operators"]) == 5 * len(SHAPES)
    assert {row["soc"] for row in report["operators"]} == {"rk3588"}


def test_what_the_command_prints(artifact: Path, board: Board) -> None:
    driver = board()
    driver.run_microseconds, driver.operator_table = 1875, TABLE
    result = CliRunner().invoke(cli, ["profile", str(artifact), "--calls", "2"])
    assert result.exit_code == 0, result.exception
    assert "[board]" in result.stdout
    assert "7.1 ± 0.7" in result.stdout
    assert "3 cores on one call" in result.stdout
    (line,) = [line for line in result.stdout.splitlines() if "attention" in line and "0.40" in line]
    assert line.split() == ["attention", "0.39", "0.40"]
    result = CliRunner().invoke(cli, ["profile", str(artifact), "--calls", "2", "--json"])
    assert json.loads(result.stdout)["operators"][1]["us"] == 391


def test_a_runtime_without_a_table(artifact: Path, board: Board) -> None:
    board()
    result = CliRunner().invoke(cli, ["profile", str(artifact), "--calls", "1"])
    assert result.exit_code == 0, result.exception
    assert "librknnrt gave no table of operators" in result.stdout


def test_off_the_board_only_the_prediction(
    artifact: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(soc, "ROOT", tmp_path / "nowhere")
    result = CliRunner().invoke(cli, ["profile", str(artifact)])
    assert result.exit_code == 0, result.exception
    assert "[predicted]" in result.stdout
    assert "[board]" not in result.stdout
    assert "There is no Rockchip NPU here" in result.stdout
    result = CliRunner().invoke(cli, ["profile", str(artifact), "--json"])
    assert (json.loads(result.stdout)["tag"], json.loads(result.stdout)["calls"]) == ("predicted", [])


def test_a_call_that_fails_is_an_error(artifact: Path, board: Board) -> None:
    driver = board()
    driver.faults.outputs_code = -1
    with pytest.raises(BackendError, match=r"the NPU did not compute 1x16 on core 0: .*Get outputs failed"):
        profile(Artifact.open(artifact), calls=1)
    assert driver.open == {}


@pytest.mark.parametrize("begins", ["at the start", "after the warm-up"])
def test_a_core_that_does_not_compute_has_no_time(artifact: Path, board: Board, begins: str) -> None:
    """The wheel ignores rknn_run's code, and a call that failed is over at once."""
    driver = board()
    driver.faults.failing = lambda core: (
        core == 1 and (begins == "at the start" or driver.calls_on.get(core, 0) >= 4)
    )
    with pytest.raises(BackendError, match="the NPU did not compute 1x16 on core 1; `tfbert-npu doctor`"):
        profile(Artifact.open(artifact), calls=5)
    assert driver.open == {}


def test_a_single_core_has_no_other_arrangement(tmp_path: Path, board: Board) -> None:
    directory = write_artifact(tmp_path / "a", shapes=((1, 16),), platform="rk3566")
    driver = board("rk3566", cores=1)
    driver.run_microseconds = 9
    found = profile(Artifact.open(directory), calls=2)
    assert [one.cores for one in found.calls] == ["core 0"]
    assert np.isfinite(found.calls[0].wall_ms)
