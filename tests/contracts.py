"""Run import-linter over the package as it is installed: `preprocess/` inside of `tfbert_npu/`."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def check_imports() -> subprocess.CompletedProcess[str]:
    """Check the contracts of pyproject.toml.

    import-linter reads the folders of a package and follows no editable install's mapping, so it gets a copy.
    """
    with tempfile.TemporaryDirectory() as folder:
        package = Path(folder, "tfbert_npu")
        # The stand-ins are modules for the toolchain's environment, not for ours.
        shutil.copytree(
            ROOT / "tfbert_npu", package, ignore=shutil.ignore_patterns("__pycache__", "standins")
        )
        shutil.copytree(
            ROOT / "preprocess", package / "preprocess", ignore=shutil.ignore_patterns("__pycache__")
        )
        shutil.copy(ROOT / "pyproject.toml", folder)
        return subprocess.run(
            [
                sys.executable,
                "-c",
                "from importlinter.cli import lint_imports_command; lint_imports_command()",
                "--no-cache",
            ],
            cwd=folder,
            env={**os.environ, "PYTHONPATH": folder},
            capture_output=True,
            text=True,
            check=False,
        )


if __name__ == "__main__":
    result = check_imports()
    print(result.stdout, result.stderr, sep="")
    sys.exit(result.returncode)
