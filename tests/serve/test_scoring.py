"""`/rerank` and `/predict` in the form of Text Embeddings Inference, beside a model that gives vectors."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import tiny_bert

from tests.serve.test_serve import TEXTS, encoder, serving
from tfbert_npu import BertForSequenceClassification, tasks
from tfbert_npu.cli.asking import Where
from tfbert_npu.cli.serve import _load
from tfbert_npu.tasks.loading import TaskModel
from tfbert_npu.tasks.sentence_encoder import SentenceEncoder

QUERY = "who ran in paris?"


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, TaskModel]:
    root = tmp_path_factory.mktemp("models")
    for name, options in (("ranker", {"num_labels": 1}), ("classes", {"labels": ["x", "y", "z"]})):
        model = BertForSequenceClassification(tiny_bert.config(initializer_range=0.3), **options)  # type: ignore[arg-type]
        model.save_pretrained(root / name)
        tiny_bert.tokenizer().save_pretrained(root / name)
    return {name: tasks.load(root / name) for name in ("ranker", "classes")}


@pytest.fixture(scope="module")
def ranker(models: dict[str, TaskModel]) -> Iterator[str]:
    with serving({"vectors": encoder(), "ranker": models["ranker"]}) as (url, _):
        yield url


@pytest.fixture(scope="module")
def classifier(models: dict[str, TaskModel]) -> Iterator[str]:
    with serving({"classes": models["classes"]}) as (url, _):
        yield url


def post(url: str, route: str, **body: Any) -> Any:
    answer = httpx.post(f"{url}/{route}", json=body, timeout=60)
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_rerank(models: dict[str, TaskModel], ranker: str) -> None:
    expected = tasks.rerank(models["ranker"], QUERY, TEXTS)
    found = post(ranker, "rerank", query=QUERY, texts=TEXTS, return_text=True)
    assert [(one["index"], one["text"]) for one in found] == [(one.index, one.text) for one in expected]
    assert [one["score"] for one in found] == pytest.approx([one.score for one in expected], abs=1e-6)
    raw = tasks.rerank(models["ranker"], QUERY, TEXTS, activation="identity")
    found = post(ranker, "rerank", query=QUERY, texts=TEXTS, raw_scores=True)
    assert [set(one) for one in found] == [{"index", "score"}] * len(TEXTS)
    assert [one["score"] for one in found] == pytest.approx([one.score for one in raw], abs=1e-5)
    assert len(post(ranker, "embed", inputs=TEXTS)) == len(TEXTS)  # the first model of its kind


def test_predict(models: dict[str, TaskModel], classifier: str) -> None:
    """One text, a pair, and several of both together."""
    inputs: list[list[str]] = [[TEXTS[0]], [TEXTS[1], TEXTS[2]], [TEXTS[3]]]
    several = post(classifier, "predict", inputs=inputs)
    for given, found in zip(inputs, several, strict=True):
        (expected,) = tasks.classify(models["classes"], given[:1], given[1:] or None)
        assert [one["label"] for one in found] == [one.label for one in expected]
        assert [one["score"] for one in found] == pytest.approx([one.score for one in expected], abs=1e-6)
        assert [one["label"] for one in post(classifier, "predict", inputs=given)] == [
            one["label"] for one in found
        ]
    assert post(classifier, "predict", inputs=TEXTS[0])[0]["label"] == several[0][0]["label"]
    raw = post(classifier, "predict", inputs=TEXTS[0], raw_scores=True)
    assert [one["label"] for one in raw] == [one["label"] for one in several[0]]
    assert sum(one["score"] for one in raw) != pytest.approx(1)


def test_info(classifier: str) -> None:
    info = httpx.get(f"{classifier}/info").json()
    assert info["model_type"]["classifier"]["id2label"] == {"0": "x", "1": "y", "2": "z"}
    assert info["max_input_length"] == 64


@pytest.mark.parametrize(
    ("route", "body", "status", "words"),
    [
        ("rerank", {"query": "a", "texts": ["b"]}, 422, "has 3 labels, and a cross-encoder has one"),
        ("rerank", {"query": "a", "texts": []}, 422, "texts"),
        ("rerank", {"texts": ["b"]}, 422, "query"),
        ("predict", {"inputs": []}, 422, "inputs"),
        ("predict", {"inputs": ["a", "b", "c"]}, 422, "inputs"),
        ("predict", {"inputs": "cat " * 80, "truncate": False}, 422, "82 tokens, more than 64"),
        ("predict", {"inputs": [["a"]] * 2049}, 413, "more than the 2048"),
        ("embed", {"inputs": "a"}, 422, "the model classes gives scores; ask /rerank or /predict"),
    ],
)
def test_what_is_refused(classifier: str, route: str, body: dict[str, Any], status: int, words: str) -> None:
    answer = httpx.post(f"{classifier}/{route}", json=body, timeout=60)
    assert answer.status_code == status
    assert words in answer.json()["error"]


def test_a_model_of_vectors_ranks_nothing() -> None:
    with serving() as (url, _):
        answer = httpx.post(f"{url}/rerank", json={"query": "a", "texts": ["b"]})
        assert answer.status_code == 422
        assert "gives vectors; ask /embed" in answer.json()["error"]


def test_the_command_loads_what_the_head_is_for(tmp_path: Path) -> None:
    model = BertForSequenceClassification(tiny_bert.config(), num_labels=1)
    model.save_pretrained(tmp_path / "ranker")
    tiny_bert.tokenizer().save_pretrained(tmp_path / "ranker")
    assert isinstance(_load(str(tmp_path / "ranker"), Where("auto", None, None)), TaskModel)
    tiny_bert.write_checkpoint(tmp_path / "encoder")
    assert isinstance(_load(str(tmp_path / "encoder"), Where("auto", None, None)), SentenceEncoder)
    assert "is neither a directory nor" in str(_load("/does/not/exist", Where("auto", None, None)))
