"""The `openvino` backend: the same ONNX file by another engine."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_bert

from tfbert_npu import BertForSequenceClassification, export_onnx, load_npu, tasks
from tfbert_npu.errors import MissingExtraError
from tfbert_npu.preprocess.saving import save_tokenizer
from tfbert_npu.runtime.errors import BackendError

TOKENIZER = tiny_bert.tokenizer()
TEXTS = ["anna ran in berlin", "a good dog", "the cat"]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("openvino")
    model = BertForSequenceClassification(tiny_bert.config(initializer_range=0.3), labels=["x", "y"])
    model.build()
    model.save_pretrained(folder / "model")
    save_tokenizer(TOKENIZER.vocabulary, TOKENIZER.options, folder / "model")
    export_onnx(folder / "model", folder / "artifact", check=False)
    return folder / "model"


def inputs(batch: int, length: int) -> dict[str, Any]:
    rng = np.random.default_rng(batch * length)
    ids = rng.integers(0, tiny_bert.config().vocab_size, (batch, length)).astype(np.int32)
    return {
        "input_word_ids": ids,
        "input_mask": np.ones_like(ids),
        "input_type_ids": np.zeros_like(ids),
    }


def test_it_is_said_how_to_install_it(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    for model in (checkpoint, checkpoint.parent / "artifact"):
        with pytest.raises(MissingExtraError, match=r"pip install 'tfbert-npu\[openvino\]'"):
            tasks.load(model, backend="openvino")


def test_any_shape_from_several_threads(checkpoint: Path) -> None:
    pytest.importorskip("openvino")
    shapes = [(1, 8), (5, 30), (2, 64), (1, 9)]
    artifact = checkpoint.parent / "artifact"
    with load_npu(artifact, "onnx") as one, load_npu(artifact, "openvino", threads=1) as other:
        assert other.runs_on == "openvino"
        wanted = [one(inputs(*shape))["logits"] for shape in shapes]
        found: list[Any] = [None] * len(shapes)

        def ask(place: int) -> None:
            for _ in range(5):  # an answer of another thread's call would be of another shape or content
                found[place] = other(inputs(*shapes[place]))["logits"]

        threads = [threading.Thread(target=ask, args=[place]) for place in range(len(shapes))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for got, expected in zip(found, wanted, strict=True):
            np.testing.assert_allclose(got, expected, atol=1e-4)
        first = other(inputs(1, 8))["logits"]
        kept = first.copy()
        other(inputs(1, 9))
        np.testing.assert_array_equal(first, kept)  # the next call does not write into this answer
    with pytest.raises(BackendError, match="is closed"):
        other(inputs(1, 8))


def test_a_checkpoint_by_the_command(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It takes the entry of the cache that `onnx` made, and then neither engine but its own."""
    pytest.importorskip("openvino")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with tasks.load(checkpoint, "classify", "onnx") as model:
        wanted = [one.score for row in tasks.classify(model, TEXTS) for one in row]
    with tasks.load(checkpoint, "classify", "openvino") as model:
        found = [one.score for row in tasks.classify(model, TEXTS) for one in row]
    assert found == pytest.approx(wanted, abs=1e-4)
    assert len(list((tmp_path / "tfbert-npu" / "onnx").iterdir())) == 1
    code = """
import sys
from tfbert_npu.cli import cli
cli(sys.argv[1:], standalone_mode=False)
loaded = {"tensorflow", "keras", "onnx", "onnxruntime"} & set(sys.modules)
assert not loaded, loaded
"""
    command = [sys.executable, "-c", code, "classify", str(checkpoint), "--backend", "openvino"]
    result = subprocess.run(command, input="anna ran\n", capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert result.stdout
