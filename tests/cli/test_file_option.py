"""`--file` on every command: directories of rk-transformers hold several .rknn files."""

from __future__ import annotations

import json
from pathlib import Path
from types import MappingProxyType

import pytest
from click.testing import CliRunner

from tests.runtime.artifacts import HIDDEN, write_foreign
from tests.runtime.conftest import Board, board  # noqa: F401 - a fixture
from tfbert_npu.cli import cli
from tfbert_npu.errors import TfbertNpuError

FILES = MappingProxyType({"rknn/model_b1_s32_o3.rknn": (1, 32), "rknn/model_b1_s64_o3.rknn": (1, 64)})
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"abcdefghijklmnopqrstuvwxyz"]
LABELED = {"architectures": ["BertForSequenceClassification"], "id2label": {"0": "no", "1": "yes"}}


def write(directory: Path, head: bool) -> Path:
    outputs = (
        {"logits": (-1, 2)}
        if head
        else {"pooler_output": (-1, HIDDEN), "last_hidden_state": (-1, -1, HIDDEN)}
    )
    write_foreign(directory, files=FILES, outputs=outputs)
    config = json.loads((directory / "config.json").read_text())
    (directory / "config.json").write_text(json.dumps({**config, **(LABELED if head else {})}))
    (directory / "vocab.txt").write_text("\n".join(WORDS) + "\n")
    (directory / "tokenizer_config.json").write_text('{"do_lower_case": true}')
    return directory


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("foreign")
    write(folder / "encoder", head=False)
    write(folder / "classifier", head=True)
    (folder / "texts").write_text("a b c\nd\n")
    (folder / "data.csv").write_text("text,label\na b,no\nc,yes\n")
    return folder


# Each command that runs a model: what is given, and for which directory.
COMMANDS = {
    "embed": ("encoder", ["--input", "texts", "--pooling", "mean"]),
    "classify": ("classifier", ["--input", "texts"]),
    "evaluate": ("classifier", ["--data", "data.csv"]),
    "benchmark": ("encoder", ["--requests", "5"]),
    "verify": ("encoder", []),
    "profile": ("encoder", ["--calls", "1"]),
    "doctor": ("encoder", []),
}


def ask(folders: Path, command: str, *more: str) -> object:
    folder, arguments = COMMANDS[command]
    given = [str(folders / one) if (folders / one).exists() else one for one in arguments]
    first = ["classify"] if command == "evaluate" else []
    return CliRunner().invoke(cli, [command, *first, str(folders / folder), *given, *more])


@pytest.mark.parametrize("command", [name for name in COMMANDS if name != "verify"])
def test_the_file_that_is_named_runs(folders: Path, board: Board, command: str) -> None:  # noqa: F811
    driver = board()
    for file in FILES:
        result = ask(folders, command, "--file", file)
        assert result.exit_code == (1 if command == "doctor" else 0), result.output + str(result.exception)
        if command == "doctor":  # the wheel is no package here
            assert f"{FILES[file][0]}x{FILES[file][1]}" in result.output
        else:
            assert {shape for seen in driver.seen for _, shape in seen} == {FILES[file]}
        driver.seen.clear()


@pytest.mark.parametrize("command", COMMANDS)
def test_without_it_the_files_are_named(folders: Path, board: Board, command: str) -> None:  # noqa: F811
    board()
    result = ask(folders, command)
    said = result.output if command == "doctor" else str(result.exception)
    assert "holds 2 .rknn files and no manifest.json; name the one to run, --file" in said.replace("\n", " ")
    assert "rknn/model_b1_s64_o3.rknn" in said


@pytest.mark.parametrize("command", ["classify", "embed", "verify"])
def test_a_file_that_is_not_there(folders: Path, board: Board, command: str) -> None:  # noqa: F811
    board()
    result = ask(folders, command, "--file", "model_o9.rknn")
    assert isinstance(result.exception, TfbertNpuError | OSError)
    assert "model_o9.rknn" in str(result.exception)
    assert "rknn/model_b1_s32_o3.rknn" in str(result.exception)


def test_a_checkpoint_has_no_such_file(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model.safetensors").write_bytes(b"")
    (tmp_path / "texts").write_text("a\n")
    result = CliRunner().invoke(
        cli, ["classify", str(tmp_path), "--input", str(tmp_path / "texts"), "--file", "a.rknn"]
    )
    assert "names a .rknn file, and" in str(result.exception)


def test_inspect_lists_the_files(folders: Path) -> None:
    result = CliRunner().invoke(cli, ["inspect", str(folders / "encoder")])
    assert result.exit_code == 0, result.exception
    assert "2 .rknn files, no manifest.json" in result.output
    assert "input input_ids int64 1x32" in result.output
    assert "input input_ids int64 1x64" in result.output
    assert "name the one to run with --file" in result.output
    result = CliRunner().invoke(cli, ["inspect", str(folders / "encoder"), "--json"])
    assert len(json.loads(result.output)) == 2
    result = CliRunner().invoke(cli, ["inspect", str(folders / "encoder"), "--operators"])
    assert "has no manifest.json of ours" in result.output
