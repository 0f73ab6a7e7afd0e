"""Every command: without its extras, mistyped, interrupted, and what its help says."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import click
import pytest
import tiny_bert
from click.testing import CliRunner

from tfbert_npu import BertForSequenceClassification, export_onnx
from tfbert_npu.cli import cli
from tfbert_npu.preprocess.saving import save_tokenizer

# Runs each command in turn where some modules cannot be imported; prints exit codes.
BASE = """
import io, json, sys
from contextlib import redirect_stderr
class Hidden:
    def find_spec(self, name, path, target=None):
        if name.partition(".")[0] in hidden:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
hidden, commands = json.loads(sys.argv[1])
sys.meta_path.insert(0, Hidden())
from tfbert_npu.cli import main
results = []
for command in commands:
    sys.argv = ["tfbert-npu", *command]
    said = io.StringIO()
    try:
        with redirect_stderr(said):
            main()
    except SystemExit as end:
        results.append([end.code, said.getvalue().splitlines()[-1:]])
print("\\n" + json.dumps(results))
"""
NOT_IN_THE_BASE = [
    *("tensorflow", "tensorflow_text", "keras", "tf_keras", "onnx", "onnxruntime", "torch", "transformers"),
    *("starlette", "uvicorn", "pydantic", "prometheus_client", "sklearn", "scipy", "tensorboard"),
    *("sentence_transformers", "openvino", "matplotlib", "tf2onnx"),
]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("models")
    BertForSequenceClassification(tiny_bert.config(), labels=["x", "y"]).save_pretrained(root / "model")
    tokenizer = tiny_bert.tokenizer()
    save_tokenizer(tokenizer.vocabulary, tokenizer.options, root / "model")
    export_onnx(root / "model", root / "onnx", check=False)
    (root / "data.csv").write_text("text,label\nthe cat,x\nanna ran,y\n")
    (root / "texts").write_text("the cat\n")
    return root


def test_a_missing_extra_is_one_line_with_the_pip_command(models: Path) -> None:
    """Each command in a base installation, on a checkpoint and on an artifact for the CPU."""
    texts, data, out = (str(models / name) for name in ("texts", "data.csv", "out"))
    wanted: list[tuple[list[str], str]] = []
    for name, extra in (("model", "tf"), ("onnx", "onnx")):
        model = str(models / name)
        wanted += [
            (["embed", model, "--input", texts], "tf" if name == "model" else ""),
            (["classify", model, "--input", texts], extra),
            (["evaluate", "classify", model, "--data", data], extra),
            (["benchmark", model], extra),
        ]
        for asked in ("ner", "fill-mask"):
            wanted.append(([asked, model, "--input", texts], extra if name == "model" else ""))
    model = str(models / "model")
    wanted += [
        (["rerank", model, texts, "--query", "a"], "tf"),
        (["qa", model, "--question", "a", "--context", texts], "tf"),
        (["demo", "--model", model], "tf"),
        (["train", model, "--task", "classify", "--train", data, "--out", out], "tf"),
        (["export", "onnx", model, out], "export"),
        (["export", "rknn", model, out], "export"),
        (["export", "saved-model", model, out], "tf"),
        (["serve", model], "serve"),
    ]
    arguments = json.dumps([NOT_IN_THE_BASE, [command for command, _ in wanted]])
    result = subprocess.run(
        [sys.executable, "-c", BASE, arguments], capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    for (command, extra), (code, said) in zip(
        wanted, json.loads(result.stdout.splitlines()[-1]), strict=True
    ):
        assert code == 1, (command, said)
        if extra:
            assert f"pip install 'tfbert-npu[{extra}]'" in said[0], (command, said)


def test_what_a_base_installation_can_do(models: Path) -> None:
    commands = [["doctor"], ["inspect", str(models / "onnx")], ["--help"], ["train", "--help"]]
    result = subprocess.run(
        [sys.executable, "-c", BASE, json.dumps([NOT_IN_THE_BASE, commands])],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert [code for code, _ in json.loads(result.stdout.splitlines()[-1])] == [0, 0, 0, 0], result.stdout


@pytest.mark.parametrize(
    ("mistyped", "meant"), [("embeded", "embed"), ("fillmask", "fill-mask"), ("rernak", "rerank")]
)
def test_a_mistyped_command_gets_a_suggestion(mistyped: str, meant: str) -> None:
    result = CliRunner().invoke(cli, [mistyped])
    assert result.exit_code == 2
    assert f"No such command '{mistyped}'. Did you mean {meant}?" in result.output
    assert "Did you mean install?" in CliRunner().invoke(cli, ["toolchain", "instatl"]).output
    assert "Did you mean" not in CliRunner().invoke(cli, ["xyzzy"]).output


def test_tensorflow_starts_quietly(models: Path) -> None:
    """Its start-up lines are in the way of an answer; `--debug` shows what it says."""
    command = [sys.executable, "-m", "tfbert_npu", "classify", str(models / "model")]
    result = subprocess.run(command, input="the cat\n", capture_output=True, text=True, check=True)
    assert result.stdout.endswith("\tthe cat\n")
    assert result.stderr == ""


def test_what_a_failing_import_says_is_shown(tmp_path: Path) -> None:
    (tmp_path / "loud.py").write_text(
        "import os\nos.write(2, b'native words\\n')\nraise RuntimeError('gone')\n"
    )
    (tmp_path / "quiet.py").write_text("import os\nos.write(2, b'native words\\n')\nname = 'quiet'\n")
    code = (
        "from tfbert_npu.cli.quiet import import_quietly\n"
        "import_quietly('quiet'); import quiet; assert quiet.name == 'quiet'\n"
        "import_quietly('loud'); import loud"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert result.stderr.count("native words") == 1
    assert result.stderr.splitlines()[-1] == "RuntimeError: gone"


def test_ctrl_c_exits_130(models: Path) -> None:
    command = [sys.executable, "-m", "tfbert_npu", "classify", str(models / "onnx")]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdin.write("the cat\n")
        process.stdin.flush()
        assert process.stdout.readline()  # it waits for the next text
        time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 130
        said = process.stderr.read()
    assert said.splitlines()[-1] == "tfbert-npu: stopped"
    assert "Traceback" not in said


def commands() -> list[tuple[str, click.Command]]:
    found = []
    with click.Context(cli) as context:
        for name in cli.list_commands(context):
            command = cli.get_command(context, name)
            if isinstance(command, click.Group):
                found += [(f"{name} {sub}", one) for sub, one in command.commands.items()]
            elif command is not None:
                found.append((name, command))
    return found


def test_every_command_shows_an_example_and_every_option_has_a_line() -> None:
    for name, command in commands():
        _, _, example = " ".join((command.help or "").split()).partition("Example: ")
        assert f"tfbert-npu {name} " in f"{example} ", name
        for option in command.params:
            if isinstance(option, click.Option):
                assert option.help, f"{name} {option.opts[0]} says nothing"
