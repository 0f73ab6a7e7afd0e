"""Every task on the NPU (the double), in whatever shapes it was compiled for, as on the CPU."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import tiny_bert

from tests.runtime.artifacts import CONFIG, SHAPES
from tests.runtime.conftest import Board
from tests.runtime.encoders import export_small
from tfbert_npu import (
    BertConfig,
    BertForMaskedLM,
    BertForQuestionAnswering,
    BertForSequenceClassification,
    BertForTokenClassification,
    export_onnx,
    tasks,
)
from tfbert_npu.errors import TaskError

LONGEST = max(length for _, length in SHAPES)
LONG = "the cat ran in berlin. anna sat! " * 12  # far more than the longest shape takes
HEADS: dict[str, tuple[Any, dict[str, Any]]] = {
    "classify": (BertForSequenceClassification, {"labels": ["x", "y", "z"]}),
    "rerank": (BertForSequenceClassification, {"num_labels": 1}),
    "ner": (BertForTokenClassification, {"labels": ["B-PER", "I-PER", "B-LOC"]}),
    "qa": (BertForQuestionAnswering, {}),
    "fill-mask": (BertForMaskedLM, {}),
}


def ask(command: str, model: tasks.TaskModel) -> Any:
    texts = ["anna [MASK]", "a dog sat in [MASK], paris", "[MASK] " + LONG]
    if command == "classify":
        return tasks.classify(model, texts)
    if command == "rerank":
        return [sorted(tasks.rerank(model, "who ran?", texts), key=lambda one: one.index)]
    if command == "ner":
        return tasks.ner(model, texts)
    if command == "qa":
        return tasks.answer(model, "who ran?", LONG, top_k=3)
    return [mask for masks in tasks.fill_mask(model, texts) for mask in masks]


@pytest.fixture(params=list(HEADS))
def exported(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[str, Path]:
    head, options = HEADS[request.param]
    config = BertConfig(**{**CONFIG, "vocab_size": len(tiny_bert.TOKENS), "initializer_range": 0.3})
    model = head(config, **options)
    directory = export_small(model, tmp_path / "artifact")
    tiny_bert.tokenizer().save_pretrained(directory)
    return request.param, directory


def test_the_npu_answers_as_the_cpu(exported: tuple[str, Path], board: Board) -> None:
    command, directory = exported
    driver = board()
    with tasks.load(directory, command, "rknn", cores=2) as npu, tasks.load(directory, backend="onnx") as cpu:
        found, expected = ask(command, npu), ask(command, cpu)
        assert npu.runs_on == "rknn"
    assert sum(driver.calls_on.values()) > 0
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        assert [type(item) for item in one] == [type(item) for item in other]
        for item, wanted in zip(one, other, strict=True):
            values, wanted_values = vars(item), vars(wanted)
            assert values.pop("score") == pytest.approx(wanted_values.pop("score"), abs=1e-4)
            assert values == wanted_values


def test_an_artifact_with_a_fixed_number_of_masked_positions(tmp_path: Path) -> None:
    config = tiny_bert.config(initializer_range=0.3)
    model = BertForMaskedLM(config)
    model.save_pretrained(tmp_path / "model")
    tiny_bert.tokenizer().save_pretrained(tmp_path / "model")
    export_onnx(tmp_path / "model", tmp_path / "two", masked_positions=2, check=False)
    texts = ["anna [MASK]", "[MASK] sat in [MASK] " + "a dog " * 10]
    expected = tasks.fill_mask(model, tiny_bert.tokenizer(), texts)
    with tasks.load(tmp_path / "two", backend="onnx") as loaded:
        found = tasks.fill_mask(loaded, texts)
        with pytest.raises(ValueError, match="the artifact computes 2 masked_lm_positions for each text"):
            tasks.fill_mask(loaded, "[MASK] [MASK] [MASK]")
    for one, other in zip(found, expected, strict=True):
        assert [[piece.token for piece in mask] for mask in one] == [
            [piece.token for piece in mask] for mask in other
        ]


def test_an_artifact_without_hidden_states_gives_no_vectors(tmp_path: Path) -> None:
    tiny_bert.write_checkpoint(tmp_path / "model")
    export_onnx(tmp_path / "model", tmp_path / "pooled", outputs=["pooled_output"], check=False)
    with (
        tasks.load(tmp_path / "pooled", "embed", "onnx") as loaded,
        pytest.raises(TaskError, match="the model gives pooled_output, default and no sequence_output"),
    ):
        tasks.embed(loaded, "anna ran")


def test_what_a_command_costs_before_it_computes(tmp_path: Path) -> None:
    """What a board pays for `import`: no TensorFlow, no hub client, and at most 60 MB over Python's own."""
    code = """
import resource, sys
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
from tfbert_npu.cli import ask, benchmark, embed, evaluate, rerank, serve, verify
loaded = {"tensorflow", "keras", "torch", "transformers", "huggingface_hub", "onnx", "onnxruntime"} & set(sys.modules)
assert not loaded, loaded
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(result.stdout) < 60
