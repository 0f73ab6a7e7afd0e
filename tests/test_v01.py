"""What tfbert-npu 0.1 wrote still loads: a `.keras` file and an artifact, each with the numbers of then."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np

from tfbert_npu import load_npu

DATA = Path(__file__).parent / "data" / "v0.1"
TEXTS = ["the cat sat", "who ran in paris, anna?"]
INPUTS = ("input_word_ids", "input_mask", "input_type_ids")

LOAD = """
import sys, keras, numpy as np, tfbert_npu
model = keras.models.load_model(sys.argv[1])
np.save(sys.argv[2], np.asarray(model(np.array(sys.argv[3:], object))))
"""


def test_a_keras_file_loads_in_a_new_process(tmp_path: Path) -> None:
    """Text to logits, with Keras's safe mode on."""
    out = tmp_path / "logits.npy"
    subprocess.run([sys.executable, "-c", LOAD, DATA / "classifier.keras", out, *TEXTS], check=True)
    np.testing.assert_allclose(np.load(out), np.load(DATA / "classifier.npz")["logits"], atol=3e-6)


def test_an_artifact_answers() -> None:
    """Its ONNX file, through the runtime, without the vendor's simulator."""
    expected = np.load(DATA / "classifier.npz")
    with load_npu(DATA / "artifact", backend="onnx") as npu:
        got = npu({name: expected[name] for name in INPUTS})
    np.testing.assert_allclose(got["logits"], expected["logits"], atol=3e-6)
