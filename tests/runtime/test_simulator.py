"""Four ways to compute the same texts: TensorFlow, onnxruntime, the vendor's simulator, and the doubled NPU."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.runtime.conftest import Board
from tests.runtime.encoders import export_small
from tfbert_npu import BertEncoder, BertPreprocessor
from tfbert_npu.rknn.toolchain.environment import ToolchainError, find_toolchain
from tfbert_npu.runtime import BackendError, load_npu

TEXTS = [
    "The river had frozen over by the first week of December.",
    "No.",
    "Die Prüfung beginnt um halb neun, und wer zu spät kommt, darf nicht mehr hinein.",
    "人工智能正在改变我们的生活方式。",
]


@pytest.fixture(scope="module")
def exported(minilm: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    from tfbert_npu.export.rknn import export_rknn

    try:
        find_toolchain()
    except ToolchainError as reason:
        pytest.skip(f"no toolchain: {reason}")
    directory = tmp_path_factory.mktemp("exported") / "minilm"
    export_rknn(minilm, directory, shapes=((1, 32),))
    return directory


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.sum(a * b) / (np.linalg.norm(a) * np.linalg.norm(b)))


@pytest.mark.slow
def test_the_same_texts_everywhere(exported: Path, minilm: Path, tmp_path: Path, board: Board) -> None:
    preprocessor = BertPreprocessor.from_pretrained(minilm, seq_length=32)
    encoder = BertEncoder.from_pretrained(minilm)
    text = keras.Input((), dtype="string")
    outputs = encoder(preprocessor(text))
    model = keras.Model(text, [outputs["pooled_output"], outputs["sequence_output"]])
    mask = preprocessor(tf.constant(TEXTS))["input_mask"].numpy() == 1

    def predict() -> list[Any]:
        pooled, sequence = model.predict(tf.constant(TEXTS), verbose=0)
        return [pooled, sequence[mask]]

    wanted = predict()
    encoder.delegate_to(exported, "onnx")
    for ours, theirs in zip(predict(), wanted, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-4)
    encoder.delegate_to(exported, "simulator")
    assert encoder.runs_on == "simulator"
    for ours, theirs in zip(predict(), wanted, strict=True):
        for row, other in zip(ours, theirs, strict=True):
            assert cosine(row, other) > 0.9999
    board()
    encoder.delegate_to(export_small(encoder.undelegate(), tmp_path / "double"), "rknn")
    for ours, theirs in zip(predict(), wanted, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-4)
    encoder.undelegate()
    np.testing.assert_array_equal(predict()[0], wanted[0])


@pytest.mark.slow
def test_a_killed_simulator_says_so(exported: Path) -> None:
    inputs = {name: np.ones((1, 32), np.int32) for name in ("input_word_ids", "input_mask", "input_type_ids")}
    with load_npu(exported, "simulator", on_error="onnx") as model:
        simulated = model(inputs)
        assert model.runs_on == "simulator"
        import psutil

        for child in psutil.Process().children(recursive=True):
            if any("vendor_process.py" in part for part in child.cmdline()):
                child.kill()
        stood_in = model(inputs)
        assert model.runs_on.startswith(
            "onnx (simulator failed: the simulator failed: rknn-toolkit2 was killed"
        )
        np.testing.assert_allclose(simulated["pooled_output"], stood_in["pooled_output"], atol=0.05)


def test_no_toolchain(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tests.runtime.artifacts import change_manifest
    from tests.runtime.encoders import small_encoder

    directory = export_small(small_encoder(), tmp_path / "a")
    build = {
        "target_platform": "rk3588",
        "optimization_level": 3,
        "single_core": False,
        "compiler_options": {},
    }
    change_manifest(directory, build=build)
    monkeypatch.setenv("TFBERT_NPU_TOOLCHAIN", str(tmp_path / "nothing"))
    with pytest.raises(ToolchainError, match="toolchain install"):
        load_npu(directory, "simulator")
    change_manifest(directory, precision="w8a8")
    with pytest.raises(BackendError, match=r"cannot compile model.rknn again: .* no model.quantization.json"):
        load_npu(directory, "simulator")
