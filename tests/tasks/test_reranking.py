"""`rerank` against sentence-transformers' own CrossEncoder, on both backends."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_bert
from click.testing import CliRunner

from tfbert_npu import BertConfig, BertForSequenceClassification, export_onnx, tasks
from tfbert_npu.cli import cli
from tfbert_npu.errors import CheckpointError, TaskError
from tfbert_npu.preprocess.saving import save_tokenizer

QUERY = "who ran in paris?"
TEXTS = ["the cat sat", "anna ran in paris", "berlin " * 60, "who", "a good dog, a bad dog.", "ran"] * 3
TOKENIZER = tiny_bert.tokenizer()


@pytest.fixture(scope="module")
def ranker(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("ranker")
    rng = np.random.default_rng(0)
    model = BertForSequenceClassification(tiny_bert.config(initializer_range=0.3), num_labels=1)
    model.build()
    for variable in model.trainable_variables:
        variable.assign_add(rng.normal(0, 0.2, variable.shape).astype(np.float32))
    model.save_pretrained(directory)
    save_tokenizer(TOKENIZER.vocabulary, TOKENIZER.options, directory)
    return directory


def cross_encoder(directory: Path, **options: Any) -> Any:
    st = pytest.importorskip("sentence_transformers")
    return st.CrossEncoder(str(directory), device="cpu", max_length=64, **options)


def check(directory: Path, theirs: Any, backend: Any) -> None:
    expected = theirs.rank(QUERY, TEXTS)
    with tasks.load(directory, "rerank", backend) as model:
        found = tasks.rerank(model, QUERY, TEXTS, batch_size=4)
        assert tasks.rerank(model, QUERY, TEXTS, 2, batch_size=4) == found[:2]
    scores = {one["corpus_id"]: float(one["score"]) for one in expected}
    assert {one.index for one in found} == set(scores)
    assert [one.score for one in found] == sorted((one.score for one in found), reverse=True)
    for one in found:
        assert one.score == pytest.approx(scores[one.index], abs=1e-5)
        assert one.text == TEXTS[one.index]


@pytest.mark.parametrize("activation", [None, "Sigmoid", "Identity"])
def test_scores_are_those_of_a_cross_encoder(ranker: Path, tmp_path: Path, activation: str | None) -> None:
    """As loaded from a plain checkpoint, and as its own `save` writes it; on the checkpoint and its artifact."""
    torch = pytest.importorskip("torch")
    options = {} if activation is None else {"activation_fn": getattr(torch.nn, activation)()}
    theirs = cross_encoder(ranker, **options)
    theirs.save_pretrained(str(tmp_path / "saved"))
    export_onnx(tmp_path / "saved", tmp_path / "onnx", check=False)
    check(tmp_path / "saved", theirs, "tf")
    check(tmp_path / "onnx", theirs, "onnx")
    if activation is None:
        check(ranker, theirs, "tf")


@pytest.mark.parametrize("name", ["sentence_transformers", "sbert_ce_default_activation_function"])
def test_the_older_places_of_the_activation(ranker: Path, tmp_path: Path, name: str) -> None:
    """config.json has it, and what is saved and exported from it as well."""
    written = "torch.nn.modules.linear.Identity"
    values = json.loads((ranker / "config.json").read_text())
    values[name] = {"activation_fn": written} if name == "sentence_transformers" else written
    (tmp_path / "config.json").write_text(json.dumps(values))
    for file in ("model.safetensors", "vocab.txt", "tokenizer_config.json"):
        (tmp_path / file).write_bytes((ranker / file).read_bytes())
    model = BertForSequenceClassification.from_pretrained(tmp_path)
    model.save_pretrained(tmp_path / "again")
    again = BertConfig.from_json(tmp_path / "again")
    assert again.score_activation == written
    export_onnx(tmp_path, tmp_path / "onnx", check=False)
    theirs = cross_encoder(tmp_path)
    assert type(theirs.activation_fn).__name__ == "Identity"
    check(tmp_path, theirs, "tf")
    check(tmp_path / "onnx", theirs, "onnx")


def test_the_command(ranker: Path, tmp_path: Path) -> None:
    (tmp_path / "texts").write_text("\n".join(TEXTS[:5]))
    arguments = ["rerank", str(ranker), str(tmp_path / "texts"), "--query", QUERY, "--top-k", "3"]
    result = CliRunner().invoke(cli, arguments, catch_exceptions=False)
    with tasks.load(ranker) as model:
        expected = tasks.rerank(model, QUERY, TEXTS[:5], top_k=3)
    assert result.stdout.splitlines() == [f"{one.score:.4f}\t{one.index}\t{one.text}" for one in expected]
    result = CliRunner().invoke(
        cli, ["rerank", str(ranker), "--query", QUERY, "--json"], input="the cat\nanna ran\n"
    )
    assert [set(json.loads(line)) for line in result.stdout.splitlines()] == [{"index", "score", "text"}] * 2


def test_what_cannot_rank(ranker: Path, tmp_path: Path) -> None:
    model = BertForSequenceClassification(tiny_bert.config(), labels=["x", "y"])
    model.save_pretrained(tmp_path)
    save_tokenizer(TOKENIZER.vocabulary, TOKENIZER.options, tmp_path)
    with tasks.load(tmp_path, "rerank") as two, pytest.raises(TaskError, match="has 2 labels, and a cross"):
        tasks.rerank(two, QUERY, TEXTS)
    with tasks.load(ranker) as one:
        assert tasks.rerank(one, QUERY, []) == []
        with pytest.raises(ValueError, match="activation must be one of sigmoid, identity"):
            tasks.rerank(one, QUERY, TEXTS, activation="relu")  # type: ignore[arg-type]
    path = ranker / "config_sentence_transformers.json"
    path.write_text('{"activation_fn": "my.code.Softplus"}')
    try:
        with tasks.load(ranker) as one, pytest.raises(CheckpointError, match=re.escape("my.code.Softplus")):
            tasks.rerank(one, QUERY, TEXTS)
    finally:
        path.unlink()
