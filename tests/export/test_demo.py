"""`tfbert-npu demo`: from our own data to an artifact and its score, in one command."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest
from click.testing import CliRunner

from tests import tiny_bert
from tfbert_npu.cli import cli
from tfbert_npu.rknn.toolchain.environment import VARIABLE
from tfbert_npu.train.trip import LENGTH, household


def test_the_data_set() -> None:
    training, test = household()
    assert (len(training), len(test)) == (384, 96)
    assert set(Counter(label for _, label in training).values()) == {32}
    assert set(Counter(label for _, label in test).values()) == {8}
    texts = [text.casefold().strip(" .!?") for text, _ in (*training, *test)]
    assert len(set(texts)) == 480
    assert max(len(text.split()) for text in texts) < LENGTH // 2


def test_what_is_there_stays(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").write_text("kept")
    tiny_bert.write_checkpoint(tmp_path / "model")
    arguments = ["demo", "--model", str(tmp_path / "model"), "--out", str(tmp_path / "out")]
    result = CliRunner().invoke(cli, arguments)
    assert isinstance(result.exception, FileExistsError)
    assert "--overwrite" in str(result.exception)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["mine"]


@pytest.mark.slow
def test_without_a_toolchain_it_ends_in_onnx(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "nothing"))
    monkeypatch.delenv(VARIABLE, raising=False)
    monkeypatch.setattr("tfbert_npu.train.trip.EPOCHS", 1)
    tiny_bert.write_checkpoint(tmp_path / "model")
    out = tmp_path / "out"
    arguments = ["demo", "--model", str(tmp_path / "model"), "--out", str(out), "--json"]
    result = CliRunner().invoke(cli, arguments, catch_exceptions=False)
    report = json.loads(result.stdout)
    assert [leg["backend"] for leg in report["legs"]] == ["tf", "onnx"]
    assert report["legs"][1]["cosine"] > 0.99999
    assert "toolchain install" in report["toolchain"]
    assert report["directory"] == str(out)
    assert {path.name for path in out.iterdir()} == {"artifact", "data", "model"}


@pytest.mark.slow
def test_the_table(minilm: Path, toolchain: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Half the demo's epochs are enough to see that it learns: 1 in 12 would be chance."""
    monkeypatch.setattr("tfbert_npu.train.trip.EPOCHS", 3)
    out = tmp_path / "out"
    result = CliRunner().invoke(
        cli, ["demo", "--model", str(minilm), "--out", str(out)], catch_exceptions=False
    )
    rows = [line.split("│") for line in result.stdout.splitlines() if "│" in line]
    cells = {row[1].strip(): [cell.strip() for cell in row[2:-1]] for row in rows}
    assert set(cells) == {"tf", "simulator"}
    for cell in cells.values():
        assert float(cell[1]) > 0.6
    assert abs(float(cells["tf"][1]) - float(cells["simulator"][1])) < 0.011  # one text of 96
    assert float(cells["simulator"][3]) > 0.9999
    assert "±" in cells["simulator"][5]
    asked = CliRunner().invoke(
        cli,
        ["classify", str(out / "artifact"), "--backend", "onnx"],
        input="Turn the lamps off, please.\n",
        catch_exceptions=False,
    )
    assert "lights_" in asked.stdout
