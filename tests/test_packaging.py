"""The wheel and the editable install, each in a virtual environment of its own."""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

if sys.version_info >= (3, 11):
    import tomllib
else:
    tomllib = pytest.importorskip("tomli")

ROOT = Path(__file__).resolve().parent.parent

PROBE = """
import sys, preprocess, tfbert_npu.preprocess
from tfbert_npu.preprocess import BertTokenizer
assert preprocess.__file__.endswith("decoy/preprocess.py"), preprocess.__file__
assert preprocess.MINE
tokenizer = BertTokenizer.from_pretrained(sys.argv[1])
print(tfbert_npu.preprocess.__file__)
print(tokenizer("a b", seq_length=5)["input_word_ids"].tolist())
"""


def run(*command: object, cwd: Path | None = None) -> str:
    result = subprocess.run(
        [str(part) for part in command], cwd=cwd, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


def test_every_package_folder_is_listed() -> None:
    """setuptools is given a list because `preprocess/` lies outside of the package; it must be complete."""
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    files = [path for folder in ("tfbert_npu", "preprocess") for path in (ROOT / folder).rglob("*.py")]
    # The stand-ins are data: modules for the toolchain's environment, not for ours.
    folders = {path.parent for path in files if "standins" not in path.parts}
    names = {".".join(folder.relative_to(ROOT).parts) for folder in folders}
    assert set(listed) == {f"tfbert_npu.{name}" if name.startswith("preprocess") else name for name in names}


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of what git would give to a newcomer: builds must leave nothing in the checkout."""
    copy = tmp_path_factory.mktemp("source") / "tfbert-npu"
    shutil.copytree(
        ROOT,
        copy,
        ignore=shutil.ignore_patterns(".*", "*.egg-info", "build", "dist", "__pycache__", "notebooks"),
    )
    return copy


@pytest.mark.slow
@pytest.mark.parametrize("form", ["wheel", "editable"])
def test_install_beside_a_decoy(source: Path, tmp_path: Path, form: str) -> None:
    run(sys.executable, "-m", "venv", tmp_path / "venv")
    python = tmp_path / "venv" / "bin" / "python"
    if form == "wheel":
        run(sys.executable, "-m", "pip", "wheel", "--no-deps", "-w", tmp_path / "wheels", source)
        (wheel,) = (tmp_path / "wheels").glob("tfbert_npu-*.whl")
        content = zipfile.ZipFile(wheel).namelist()
        assert "tfbert_npu/preprocess/tokenizer.py" in content
        assert "tfbert_npu/py.typed" in content
        assert any(name.endswith("/licenses/LICENSE") for name in content)
        # Nothing of ours beside the package: no top-level `preprocess`, no tests.
        assert {name.partition("/")[0].partition("-")[0] for name in content} == {"tfbert_npu"}
        run(python, "-m", "pip", "install", wheel)
    else:
        run(python, "-m", "pip", "install", "-e", source)
    decoy, model = tmp_path / "decoy", tmp_path / "model"
    decoy.mkdir()
    (decoy / "preprocess.py").write_text("MINE = True\n")
    model.mkdir()
    (model / "vocab.txt").write_text("[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\na\nb\n")
    (model / "tokenizer_config.json").write_text('{"do_lower_case": true}')
    place, ids = run(python, "-c", PROBE, model, cwd=decoy).splitlines()
    assert ids == "[[2, 5, 6, 3, 0]]"
    expected = source / "preprocess" if form == "editable" else tmp_path / "venv"
    assert Path(place).resolve().is_relative_to(expected.resolve())
    command = tmp_path / "venv" / "bin" / "tfbert-npu"
    assert "Commands:" in run(command, "--help", cwd=decoy)
