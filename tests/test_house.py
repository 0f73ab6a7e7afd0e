"""The house in order: style, spelling, types, who may import whom, and a README that says what CI does."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

import tfbert_npu
from tests.contracts import check

if sys.version_info >= (3, 11):
    import tomllib
else:
    tomllib = pytest.importorskip("tomli")

ROOT = Path(__file__).resolve().parent.parent


def run(*command: str) -> None:
    result = subprocess.run(
        [sys.executable, "-m", *command], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stdout + result.stderr


def test_ruff() -> None:
    run("ruff", "check", ".")
    run("ruff", "format", "--check", ".")


def test_mypy() -> None:
    result = check("types")
    assert result.returncode == 0, result.stdout + result.stderr


def test_codespell() -> None:
    result = subprocess.run(
        [sys.executable, "-m", "codespell_lib"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert result.stdout + result.stderr == ""


def test_a_folder_imports_only_from_folders_below_it() -> None:
    result = check("imports")
    assert result.returncode == 0, result.stdout + result.stderr


def test_no_import_is_excused() -> None:
    """Every import goes down: the contract overlooks none."""
    tool = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]
    (contract,) = tool["importlinter"]["contracts"]
    assert "ignore_imports" not in contract


def test_few_imports_hide_in_functions() -> None:
    """What is imported within a function is an optional extra, or TensorFlow where a board does without."""
    hidden = [
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for folder in ("tfbert_npu", "preprocess")
        for path in (ROOT / folder).rglob("*.py")
        for function in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef)
        for node in ast.walk(function)
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("tfbert_npu")
    ]
    assert len(hidden) <= 25, hidden


def test_no_file_is_long() -> None:
    """A file holds one idea."""
    files = [path for folder in ("tfbert_npu", "preprocess") for path in (ROOT / folder).rglob("*.py")]
    long = {path.relative_to(ROOT).as_posix() for path in files if len(path.read_bytes().splitlines()) > 350}
    assert not long


def test_one_version() -> None:
    """The number stands in `tfbert_npu/_version.py`; the distribution takes it from there."""
    pyproject = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert pyproject["project"]["dynamic"] == ["version"]
    assert re.fullmatch(r"\d+\.\d+\.\d+", tfbert_npu.__version__)


def test_ci_runs_the_commands_of_the_readme() -> None:
    commands = re.findall(r"```bash\n(.*?)\n```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    lines = (ROOT / ".ci" / "run").read_text(encoding="utf-8").splitlines()
    made = [line for line in lines if "pip install" in line]
    assert len(made) == 2
    assert set(made) <= set(commands)


def test_the_oldest_versions_are_the_floors_of_the_ranges() -> None:
    pins = (ROOT / ".ci" / "oldest.txt").read_text(encoding="utf-8").splitlines()
    pinned = dict(line.split("==") for line in pins if not line.startswith("#"))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    for requirement in [*project["dependencies"], *extras["tf"], *extras["export"]]:
        name, floor = re.match(r"([\w-]+)>=([\d.]+)", requirement).groups()
        if name != "rknn-toolkit-lite2":  # for boards only
            assert f"{pinned[name]}.".startswith(f"{floor}."), requirement


@pytest.mark.parametrize("document", sorted(path.name for path in ROOT.glob("*.md")))
def test_documents_link_to_files_that_are_there(document: str) -> None:
    links = re.findall(r"\]\(([^)#:]+)\)", (ROOT / document).read_text(encoding="utf-8"))
    assert [link for link in links if not (ROOT / link).exists()] == []


def test_the_drawing_shows_every_folder() -> None:
    drawing = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8").split("```")[1]
    folders = {path.parent.name for path in (ROOT / "tfbert_npu").glob("*/__init__.py")}
    assert set(re.findall(r"(\w+)/ ", drawing)) == folders | {"preprocess"}


def test_each_issue_template_asks_for_the_doctor() -> None:
    templates = list((ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml"))
    assert templates
    for template in templates:
        assert "tfbert-npu doctor --json" in template.read_text(encoding="utf-8"), template.name


def test_causes_and_remedies_are_fields() -> None:
    """No message of our own errors hides its remedy behind a semicolon, and none parses one."""
    own = {
        name
        for path in (ROOT / "tfbert_npu").rglob("*.py")
        for name in re.findall(r"^class (\w+Error)\((?:TfbertNpuError|\w+Error)", path.read_text(), re.M)
    }
    hidden = []
    for folder in ("tfbert_npu", "preprocess"):
        for path in (ROOT / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if not isinstance(node, ast.Call) or len(node.args) != 1:
                    continue
                name = getattr(node.func, "id", getattr(node.func, "attr", ""))
                parts = getattr(node.args[0], "values", [node.args[0]])
                texts = [part.value for part in parts if isinstance(part, ast.Constant)]
                if name in own and any("; " in str(text) for text in texts):
                    hidden.append(f"{path.relative_to(ROOT)}:{node.lineno}")
    assert "CheckpointError" in own
    assert not hidden
