"""The documentation site: it builds without a warning, its Python runs, its commands exist."""

from __future__ import annotations

import ast
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import click
import pytest
import tiny_bert

import tfbert_npu
from tfbert_npu.cli import cli

ROOT = Path(__file__).resolve().parent.parent
PAGES = sorted((ROOT / "docs").rglob("*.md"))
FENCE = re.compile(r"^( *)```(\w+)([^\n]*)\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)
BEFORE = 'title="before"'  # another library's code, shown beside ours


def blocks(page: Path, language: str) -> list[tuple[str, str]]:
    """Title and text of each fenced block of a language."""
    found = FENCE.findall(page.read_text(encoding="utf-8"))
    return [
        (title.strip(), re.sub(rf"^{indent}", "", text, flags=re.MULTILINE))
        for indent, name, title, text in found
        if name == language
    ]


def commands(page: Path) -> list[list[str]]:
    """The arguments of each `tfbert-npu` in a page's bash blocks, pipes taken apart."""
    text = "\n".join(block for _, block in blocks(page, "bash")).replace("\\\n", " ")
    found = []
    for line in text.splitlines():
        lexer = shlex.shlex(line, posix=True, punctuation_chars="|&;<>")
        lexer.whitespace_split = True
        command: list[str] = []
        for word in [*lexer, ";"]:
            if set(word) <= set("|&;<>"):
                if command and command[0].endswith("tfbert-npu"):
                    found.append(command[1:])
                command = []
            else:
                command.append(word)
    return found


def parse(arguments: list[str]) -> None:
    """Parse as the command line would, but look for no files."""
    command: click.Command = cli
    context = click.Context(cli, info_name="tfbert-npu")
    while isinstance(command, click.Group):
        name, found, arguments = command.resolve_command(context, arguments)
        assert found is not None
        command, context = found, click.Context(found, info_name=name, parent=context)
    if "--help" in arguments:
        return
    values, left, _ = command.make_parser(context).parse_args(list(arguments))
    assert not left
    for parameter in command.params:
        value = values.get(str(parameter.name))
        given = isinstance(value, str | list | tuple | bool | int)
        assert given or not parameter.required, f"{command.name} without {parameter.name}"
        if given and not isinstance(parameter.type, click.Path | click.File):
            parameter.type_cast_value(context, value)


PYTHON_PAGES = [page for page in PAGES if any(title != BEFORE for title, _ in blocks(page, "python"))]
BASH_PAGES = [page for page in PAGES if commands(page)]


@pytest.mark.parametrize("page", BASH_PAGES, ids=lambda page: page.stem)
def test_the_commands_of_a_page_exist(page: Path) -> None:
    for arguments in commands(page):
        parse(arguments)


def test_a_wrong_option_is_found() -> None:
    with pytest.raises(click.UsageError):
        parse(["train", "minilm", "--tusk", "classify"])
    with pytest.raises(click.UsageError):
        parse(["export", "rknn", "minilm", "out", "--precision", "w7a7"])


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with tiny models under the names that the pages use."""
    pytest.importorskip("tensorflow")
    from tfbert_npu import BertForSequenceClassification, export_onnx

    folder = tmp_path_factory.mktemp("docs")
    minilm = tiny_bert.write_checkpoint(folder / "minilm")
    model = BertForSequenceClassification.from_pretrained(minilm, labels=["refund", "card"])
    model.save_pretrained(folder / "mine")
    for name in ("vocab.txt", "tokenizer_config.json"):
        (folder / "mine" / name).write_bytes((minilm / name).read_bytes())
    export_onnx(folder / "mine", folder / "mine-onnx")
    export_onnx(minilm, folder / "minilm-onnx")
    return folder


@pytest.mark.parametrize("page", PYTHON_PAGES, ids=lambda page: page.stem)
def test_the_python_of_a_page_runs(page: Path, models: Path, tmp_path: Path) -> None:
    for made in models.iterdir():
        (tmp_path / made.name).symlink_to(made)
    code = "\n".join(text for title, text in blocks(page, "python") if title != BEFORE)
    result = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_other_libraries_code_is_python(page: Path) -> None:
    for _, text in blocks(page, "python"):
        ast.parse(text)


def test_the_site_builds_without_a_warning(tmp_path: Path) -> None:
    pytest.importorskip("mkdocs", reason="no mkdocs; pip install 'tfbert-npu[docs]'")
    pytest.importorskip("mkdocstrings", reason="no mkdocstrings; pip install 'tfbert-npu[docs]'")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", os.fspath(tmp_path)]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    assert (tmp_path / "index.html").is_file()


def test_the_reference_has_every_public_name() -> None:
    shown = re.findall(r"^::: [\w.]+\.(\w+)$", (ROOT / "docs" / "reference.md").read_text(), re.MULTILINE)
    assert sorted(shown) == sorted(name for name in tfbert_npu.__all__ if name != "__version__")
