"""What tfbert-npu 0.1 wrote still loads: a `.keras` file and an artifact, each with the numbers of then."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tfbert_npu import load_npu
from tfbert_npu.errors import ArtifactError
from tfbert_npu.tasks.running import call

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


def test_a_tokenizer_that_is_not_the_artifacts_is_refused(tmp_path: Path) -> None:
    """Two lines of vocab.txt swapped give other ids, with vectors that look right."""
    artifact = tmp_path / "artifact"
    shutil.copytree(DATA / "artifact", artifact)
    lines = (artifact / "vocab.txt").read_text().splitlines()
    lines[-1], lines[-2] = lines[-2], lines[-1]
    (artifact / "vocab.txt").write_text("\n".join(lines) + "\n")
    with pytest.raises(ArtifactError, match=r"vocab\.txt is not the file that was exported"):
        load_npu(artifact, backend="onnx")


@pytest.mark.parametrize("bad", [-1, 10**6])
def test_tasks_look_at_ids_before_the_runtime_does(bad: int) -> None:
    """A gather answers an id of -1 with the table's last row."""
    inputs = {name: np.ones((1, 4), np.int32) for name in INPUTS}
    inputs["input_word_ids"][0, 2] = bad
    with load_npu(DATA / "artifact", backend="onnx") as npu:
        with pytest.raises(ValueError, match=rf"input_word_ids\[0, 2\] is {bad}"):
            call(npu, inputs)
        inputs["input_word_ids"][0, 2] = 5
        for mask in (255, -1):
            inputs["input_mask"][0, 3] = mask
            with pytest.raises(ValueError, match=rf"input_mask\[0, 3\] is {mask}"):
                npu(inputs)
