"""`tfbert-npu doctor` on boards that are files in a directory."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from tests.runtime.artifacts import write_artifact, write_foreign
from tests.runtime.conftest import make_board
from tfbert_npu.cli.doctor import doctor as command
from tfbert_npu.runtime import doctor, soc


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    root = tmp_path / "board"
    make_board(root)
    for name, content in {
        "sys/module/rknpu/version": "0.9.8\n",
        "sys/class/devfreq/fdab0000.npu/governor": "rknpu_ondemand\n",
        "sys/class/devfreq/fdab0000.npu/cur_freq": "300000000\n",
        "sys/class/devfreq/fdab0000.npu/max_freq": "1000000000\n",
        "sys/class/devfreq/dmc/governor": "performance\n",
        "sys/class/devfreq/dmc/cur_freq": "2112000000\n",
        "sys/class/devfreq/dmc/max_freq": "2112000000\n",
        "sys/class/devfreq/fb000000.gpu/governor": "simple_ondemand\n",
        "proc/meminfo": "MemTotal: 8000000 kB\nMemAvailable:    4194304 kB\n",
    }.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    monkeypatch.setattr(soc, "ROOT", root)
    versions = dict.fromkeys(doctor.PACKAGES, "1.0")
    monkeypatch.setattr(doctor, "_package", versions.get)
    return root


def test_a_board_in_order(root: Path, tmp_path: Path) -> None:
    report = doctor.examine(write_artifact(tmp_path / "a"))
    assert (report.soc, report.cores, report.driver_version) == ("rk3588", 3, "0.9.8")
    assert (report.library, report.library_version) == ("/usr/lib/librknnrt.so", "2.5.0")
    assert [(clock.name, clock.governor) for clock in report.clocks] == [
        ("dmc", "performance"),
        ("fdab0000.npu", "rknpu_ondemand"),
    ]
    assert report.free_memory_mb == 4096
    assert report.verdict == "ready: 3 NPU cores of rk3588"
    assert [finding.level for finding in report.findings] == ["note"]
    assert "300 of 1000 MHz" in report.findings[0].what
    assert "fdab0000.npu/governor" in report.findings[0].remedy


def test_a_file_of_rk_transformers(root: Path, tmp_path: Path) -> None:
    report = doctor.examine(write_foreign(tmp_path / "rk"))
    assert report.artifact is not None
    assert (report.artifact["shapes"], report.artifact["toolkit_versions"]) == ([[1, 32]], ["2.3.2"])
    assert report.verdict == "ready: 3 NPU cores of rk3588"


def without_driver(root: Path) -> None:
    (root / "sys/module/rknpu/version").unlink()
    (root / "dev/dri/renderD129").unlink()


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (lambda root: (root / "usr/lib/librknnrt.so").unlink(), "librknnrt.so is not installed"),
        (without_driver, "no NPU driver"),
        (lambda root: make_board(root, version="2.3.2"), "compiled by toolkit 2.5.0 and librknnrt is 2.3.2"),
        (lambda root: make_board(root, "rk3576"), "is for rk3588 and this board is rk3576"),
        (lambda root: make_board(root, "rk9999"), "the SoC of this board"),
        (lambda root: (root / "proc/meminfo").write_text("MemAvailable: 0 kB\n"), "0 MiB are free"),
    ],
)
def test_what_stands_in_the_way(root: Path, tmp_path: Path, change: object, what: str) -> None:
    directory = write_artifact(tmp_path / "a")
    with (directory / "model.rknn").open("rb") as stream:
        size = len(stream.read())
    if what.startswith("0 MiB"):
        from tests.runtime.artifacts import change_manifest

        change_manifest(
            directory,
            cost={"1x16": {"cycles": 1, "mb_moved": 1, "npu_ops": 1, "cpu_ops": 0, "internal_mb": 10.0}},
        )
        assert size < 2**20
    change(root)  # type: ignore[operator]
    report = doctor.examine(directory)
    errors = [finding for finding in report.findings if finding.level == "error"]
    assert len(errors) == 1
    assert what in errors[0].what
    assert errors[0].remedy
    assert report.verdict == "not ready: see the errors"


def test_a_damaged_artifact(root: Path, tmp_path: Path) -> None:
    directory = write_artifact(tmp_path / "a")
    (directory / "model.rknn").write_bytes(b"x")
    result = CliRunner().invoke(command, [str(directory)])
    assert result.exit_code == 1
    assert "has 1 bytes, not the" in result.output
    (directory / "manifest.json").write_text("{")
    assert "is not JSON" in doctor.examine(directory).findings[-1].what


def test_off_the_board(tmp_path: Path) -> None:
    report = doctor.examine(root=tmp_path)
    assert report.soc is None
    assert report.healthy
    assert report.verdict.startswith("no Rockchip NPU here")


def test_json(root: Path) -> None:
    result = CliRunner().invoke(command, ["--json"])
    assert result.exit_code == 0, result.output
    report = json.loads(result.output)
    assert report["soc"] == "rk3588"
    assert report["clocks"][0]["most_hz"] == 2112000000
    assert report["verdict"].startswith("ready")


def test_the_table(root: Path) -> None:
    result = CliRunner().invoke(command, [])
    assert "rk3588, 3 cores" in result.output
    assert "note: fdab0000.npu runs at 300 of 1000 MHz" in result.output
