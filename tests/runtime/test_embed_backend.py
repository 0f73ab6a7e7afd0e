"""`tfbert-npu embed` on an artifact directory."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np

from tests.runtime.encoders import export_small, small_encoder

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"abcdefghijklmnopqrstuvwxyz"]

# What imported what: the path of the board must not know TensorFlow.
EMBED = """
import sys
from tfbert_npu.cli import cli
cli(sys.argv[1:], standalone_mode=False)
assert not {"tensorflow", "keras", "torch"} & set(sys.modules), "TensorFlow was imported"
"""


def test_an_artifact_is_embedded_without_tensorflow(tmp_path: Path) -> None:
    encoder = small_encoder()
    for directory in (export_small(encoder, tmp_path / "artifact"), tmp_path / "checkpoint"):
        directory.mkdir(exist_ok=True)
        (directory / "vocab.txt").write_text("\n".join(WORDS) + "\n")
        (directory / "tokenizer_config.json").write_text('{"do_lower_case": true}')
    encoder.save_pretrained(tmp_path / "checkpoint")
    (tmp_path / "texts").write_text("a b c\n\nx y z a b c d e f\n" + "q " * 90 + "\n")
    common = ["embed", "--input", str(tmp_path / "texts"), "--seq-length", "64"]
    for code, name, options in (
        (EMBED, "artifact", []),
        (EMBED, "artifact", ["--backend", "onnx"]),
        ("from tfbert_npu.cli import main; main()", "checkpoint", ["--backend", "tf"]),
    ):
        output = tmp_path / f"{name}{len(options)}.npy"
        command = [
            sys.executable,
            "-c",
            code,
            *common,
            str(tmp_path / name),
            "--output",
            str(output),
            *options,
        ]
        result = subprocess.run(command, capture_output=True, text=True, check=False)
        assert result.returncode == 0, result.stderr
    wanted = np.load(tmp_path / "checkpoint2.npy")
    for name in ("artifact0.npy", "artifact2.npy"):
        np.testing.assert_allclose(np.load(tmp_path / name), wanted, atol=1e-4)


def test_a_checkpoint_runs_on_no_board(tmp_path: Path) -> None:
    small_encoder().save_pretrained(tmp_path)
    (tmp_path / "vocab.txt").write_text("\n".join(WORDS) + "\n")
    command = [sys.executable, "-m", "tfbert_npu", "embed", str(tmp_path), "--backend", "rknn"]
    result = subprocess.run(command, input="a\n", capture_output=True, text=True, check=False)
    assert result.returncode == 1
    assert "runs an artifact, and" in result.stderr
