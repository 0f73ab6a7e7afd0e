"""pytorch_model.bin: what is refused before PyTorch's loader sees it."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import pytest

from tfbert_npu.checkpoints.pytorch import read_pickles
from tfbert_npu.errors import CheckpointError

torch = pytest.importorskip("torch")


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    torch.save({"a": torch.arange(6.0).reshape(2, 3)}, tmp_path / "pytorch_model.bin")
    return tmp_path


def test_tensors_are_read(checkpoint: Path) -> None:
    np.testing.assert_array_equal(read_pickles(checkpoint)["a"], np.arange(6.0).reshape(2, 3))


@pytest.mark.parametrize("version", ["2.5.1+cu124", "1.13.1"])
def test_a_pytorch_whose_safe_loader_is_not_safe(
    checkpoint: Path, monkeypatch: pytest.MonkeyPatch, version: str
) -> None:
    monkeypatch.setattr(torch, "__version__", version)
    with pytest.raises(CheckpointError, match=r"CVE-2025-32434\); install PyTorch 2\.6 or newer"):
        read_pickles(checkpoint)


def test_a_small_file_that_unpacks_to_a_large_one(checkpoint: Path) -> None:
    path = checkpoint / "pytorch_model.bin"
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data/9", bytes(50 * 2**20))
    with pytest.raises(CheckpointError, match="would unpack to 52"):
        read_pickles(checkpoint)


@pytest.mark.parametrize("seed", range(40))
def test_damaged_bytes_are_one_sentence_without_bad_advice(checkpoint: Path, seed: int) -> None:
    """Bits flipped and ends cut off, in the form of today and in the bare pickle of before."""
    rng = np.random.default_rng(seed)
    path = checkpoint / "pytorch_model.bin"
    if seed % 2:
        state = {"a": torch.arange(6.0)}
        torch.save(state, path, _use_new_zipfile_serialization=False)
    content = bytearray(path.read_bytes())
    if seed % 3:
        for place in rng.integers(0, len(content), 8):
            content[place] ^= 1 << int(rng.integers(8))
    else:
        content = content[: int(rng.integers(len(content)))]
    path.write_bytes(content)
    try:
        read_pickles(checkpoint)
    except CheckpointError as error:
        said = str(error)
    else:
        said = ""
    assert "\n" not in said
    assert "weights_only=False" not in said
    assert "re-running" not in said
