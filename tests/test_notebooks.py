"""Every notebook runs from top to bottom, and is kept with its outputs."""

from __future__ import annotations

import os
from pathlib import Path

import nbformat
import pytest

from tfbert_npu.rknn.toolchain.environment import ToolchainError, find_toolchain

NOTEBOOKS = sorted((Path(__file__).resolve().parent.parent / "notebooks").glob("*.ipynb"))


def code_cells(path: Path) -> list[nbformat.NotebookNode]:
    return [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]


def test_there_are_notebooks() -> None:
    assert NOTEBOOKS


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_outputs_are_kept_and_free_of_errors(path: Path) -> None:
    cells = code_cells(path)
    assert all(cell.execution_count for cell in cells)
    outputs = [output for cell in cells for output in cell.outputs]
    assert outputs
    assert not [output for output in outputs if output.output_type == "error"]


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_it_runs(path: Path, minilm: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nbclient = pytest.importorskip("nbclient")
    # A notebook's kernel writes its own state; leave nothing of it with the user.
    monkeypatch.setenv("IPYTHONDIR", os.fspath(tmp_path / "ipython"))
    notebook = nbformat.read(path, as_version=4)
    if notebook.metadata.get("tfbert_npu", {}).get("needs") == "toolchain":
        try:
            find_toolchain()
        except ToolchainError as reason:
            pytest.skip(f"no toolchain: {reason}")
    nbclient.NotebookClient(notebook, timeout=900, resources={"metadata": {"path": str(tmp_path)}}).execute()
