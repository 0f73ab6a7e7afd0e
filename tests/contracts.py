"""import-linter and mypy over the package as it is installed: `preprocess/` inside of `tfbert_npu/`.

python -m tests.contracts [imports|types]
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def copy_package(folder: str | os.PathLike[str]) -> None:
    """Copy the package into a folder as it is installed, for tools that follow no editable install's mapping."""
    package = Path(folder, "tfbert_npu")
    # The stand-ins are modules for the toolchain's environment, not for ours.
    shutil.copytree(ROOT / "tfbert_npu", package, ignore=shutil.ignore_patterns("__pycache__", "standins"))
    shutil.copytree(ROOT / "preprocess", package / "preprocess", ignore=shutil.ignore_patterns("__pycache__"))


def check(tool: str) -> subprocess.CompletedProcess[str]:
    """Check the layers of pyproject.toml (`"imports"`), or the types of one folder against another (`"types"`)."""
    program = "from importlinter.cli import lint_imports_command; lint_imports_command(['--no-cache'])"
    command = ["-m", "mypy", "tfbert_npu"] if tool == "types" else ["-c", program]
    with tempfile.TemporaryDirectory() as folder:
        copy_package(folder)
        shutil.copy(ROOT / "pyproject.toml", folder)
        return subprocess.run(
            [sys.executable, *command],
            cwd=folder,
            env={**os.environ, "PYTHONPATH": folder},
            capture_output=True,
            text=True,
            check=False,
        )


if __name__ == "__main__":
    result = check(sys.argv[1] if len(sys.argv) > 1 else "imports")
    print(result.stdout, result.stderr, sep="")
    sys.exit(result.returncode)
