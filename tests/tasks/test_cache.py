"""A checkpoint on the `onnx` backend is converted once: into the cache, or without one for this time."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_bert

from tfbert_npu import BertForSequenceClassification, SentenceEncoder, tasks
from tfbert_npu.errors import TaskError
from tfbert_npu.onnx import cache, conversion
from tfbert_npu.preprocess.saving import save_tokenizer

TOKENIZER = tiny_bert.tokenizer()
TEXTS = ["anna ran in berlin", "a good dog"]


def save(folder: Path) -> Path:
    model = BertForSequenceClassification(tiny_bert.config(initializer_range=0.3), labels=["x", "y"])
    model.build()
    model.save_pretrained(folder)
    save_tokenizer(TOKENIZER.vocabulary, TOKENIZER.options, folder)
    return folder


@pytest.fixture
def checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return save(tmp_path / "model")


def entries(tmp_path: Path) -> list[Path]:
    return sorted((tmp_path / "cache" / "tfbert-npu" / "onnx").iterdir())


def scores(folder: Path, backend: Any) -> list[float]:
    with tasks.load(folder, "classify", backend) as model:
        return [one.score for row in tasks.classify(model, TEXTS) for one in row]


def convert_never(*_: Any) -> None:
    raise AssertionError("converted again")


def test_a_sentence_encoder_of_a_checkpoint(checkpoint: Path, tmp_path: Path) -> None:
    """`embed` has an entry of its own, because it takes the encoder of a model with a head."""
    expected = SentenceEncoder.from_pretrained(checkpoint, "tf").encode(TEXTS)
    found = SentenceEncoder.from_pretrained(checkpoint, "onnx").encode(TEXTS)
    np.testing.assert_allclose(found, expected, atol=1e-4)
    assert scores(checkpoint, "onnx") == pytest.approx(scores(checkpoint, "tf"), abs=1e-4)
    assert len(entries(tmp_path)) == 2


def test_the_next_start_converts_nothing(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = scores(checkpoint, "onnx")
    monkeypatch.setattr(conversion.Conversion, "write", convert_never)
    assert scores(checkpoint, "onnx") == first
    with pytest.raises(TaskError, match="not for ner"):
        tasks.load(checkpoint, "ner", "onnx")


def test_changed_weights_give_another_entry(checkpoint: Path, tmp_path: Path) -> None:
    before = scores(checkpoint, "onnx")
    weights = checkpoint / "model.safetensors"
    old, data = weights.stat(), weights.read_bytes()
    save(checkpoint)
    # As large as before and, as the file says, as old.
    assert weights.stat().st_size == len(data)
    os.utime(weights, ns=(old.st_atime_ns, old.st_mtime_ns))
    after = scores(checkpoint, "onnx")
    assert after != before
    assert after == pytest.approx(scores(checkpoint, "tf"), abs=1e-4)
    assert len(entries(tmp_path)) == 2
    weights.write_bytes(data)
    assert scores(checkpoint, "onnx") == before
    assert len(entries(tmp_path)) == 2


def test_unchanged_files_are_not_read_again(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = ["config.json", "model.safetensors"]
    now = time.time_ns()
    monkeypatch.setattr(cache.time, "time_ns", lambda: now + 10**10)  # ten seconds later
    key = cache.entry_key(checkpoint, files, "own")
    monkeypatch.setattr(cache, "sha256_of", convert_never)
    assert cache.entry_key(checkpoint, files, "own") == key
    assert cache.entry_key(checkpoint, files, "encoder") != key
    os.utime(checkpoint / "config.json", ns=(1, 1))
    with pytest.raises(AssertionError, match="converted again"):
        cache.entry_key(checkpoint, files, "own")


def test_files_that_were_just_written_are_read_again(
    checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The clock of a file system may be so coarse that a second change leaves no trace."""
    cache.entry_key(checkpoint, ["config.json"], "own")
    monkeypatch.setattr(cache, "sha256_of", convert_never)
    with pytest.raises(AssertionError, match="converted again"):
        cache.entry_key(checkpoint, ["config.json"], "own")


@pytest.mark.parametrize("file", ["model.onnx", "manifest.json", "vocab.txt", "config.json"])
@pytest.mark.parametrize("damage", ["cut", "gone"])
def test_a_damaged_entry_is_made_again_and_that_is_said_once(
    checkpoint: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, file: str, damage: str
) -> None:
    before = scores(checkpoint, "onnx")
    (entry,) = entries(tmp_path)
    if damage == "cut":
        (entry / file).write_bytes((entry / file).read_bytes()[:-9])
    else:
        (entry / file).unlink()
    assert scores(checkpoint, "onnx") == before
    assert caplog.text.count("in the cache is damaged") == 1
    assert scores(checkpoint, "onnx") == before
    assert caplog.text.count("in the cache is damaged") == 1
    assert entries(tmp_path) == [entry]


def test_a_cache_that_cannot_be_written(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert scores(checkpoint, "onnx") == pytest.approx(scores(checkpoint, "tf"), abs=1e-4)
    assert caplog.text.count("used once and not kept") == 1


def test_what_cannot_be_read_leaves_nothing_in_the_cache(checkpoint: Path, tmp_path: Path) -> None:
    (checkpoint / "vocab.txt").unlink()
    with pytest.raises(FileNotFoundError, match="holds no vocabulary"):
        tasks.load(checkpoint, "classify", "onnx")
    with pytest.raises(TaskError, match="not for ner"):
        tasks.load(checkpoint, "ner", "onnx")
    assert not (tmp_path / "cache" / "tfbert-npu" / "onnx").exists()


def test_a_model_whose_graph_is_another_stays_on_tensorflow(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    write_graph = conversion.write_graph

    def write_another(config: Any, state: Any, head: Any) -> Any:
        name = "encoder.layer.0.intermediate.dense.bias"
        return write_graph(config, {**state, name: state[name] + 0.5}, head)

    monkeypatch.setattr(conversion, "write_graph", write_another)
    with tasks.load(checkpoint, "classify", "onnx") as model:
        assert model.runs_on == "tf"
        assert tasks.classify(model, TEXTS)
    assert "stays on TensorFlow: its ONNX graph is not the model: logits has cosine" in caplog.text
    assert entries(tmp_path) == []


def test_two_processes_at_once(checkpoint: Path, tmp_path: Path) -> None:
    code = """
import sys
sys.modules["tensorflow"] = None  # so that no time is spent on comparing
from tfbert_npu import tasks
with tasks.load(sys.argv[1], "classify", "onnx") as model:
    rows = tasks.classify(model, ["anna ran in berlin", "a good dog"])
    print(model.runs_on, *(one.score for row in rows for one in row))
"""
    command = [sys.executable, "-c", code, str(checkpoint)]
    started = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    answers = [process.communicate()[0].split() for process in started]
    assert [process.returncode for process in started] == [0, 0]
    for backend, *found in answers:
        assert backend == "onnx"
        assert [float(one) for one in found] == pytest.approx(scores(checkpoint, "onnx"), abs=1e-6)
    assert len(entries(tmp_path)) == 1
