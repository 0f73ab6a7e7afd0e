"""`train --task similarity`: losses and files against sentence-transformers, and what bad data is told."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tiny_bert
from safetensors.numpy import load_file

from tfbert_npu import SentenceEncoder
from tfbert_npu.checkpoints.sentence_options import (
    MODES,
    SentenceOptions,
    read_sentence_options,
    write_sentence_options,
)
from tfbert_npu.models.similarity import POOLINGS, BertForSimilarity, SimilarityLoss, pool
from tfbert_npu.tasks import sentence_encoder
from tfbert_npu.train.batches import BatchOptions
from tfbert_npu.train.data_options import DataOptions
from tfbert_npu.train.fine_tuning import fine_tune
from tfbert_npu.train.kinds import make_task
from tfbert_npu.train.options import TrainOptions

# Nothing in the second text says to which first one it belongs: that is to be learned.
PAIRS = [(f"the cat {a}", f"anna {b}") for a, b in zip("abcdefghijklmnop", "ponmlkjihgfedcba", strict=True)]
ROWS: dict[str, list[dict[str, Any]]] = {
    "pairs": [{"text_a": a, "text_b": b} for a, b in PAIRS],
    "scores": [{"text_a": a, "text_b": b, "score": i / 16} for i, (a, b) in enumerate(PAIRS)],
    "triplets": [{"anchor": a, "positive": b, "negative": f"who {b}"} for a, b in PAIRS],
}


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    keras.utils.set_random_seed(0)
    return tiny_bert.write_checkpoint(tmp_path_factory.mktemp("model"))


def tune(model: Path, data: Path, out: Path, dimensions: tuple[int, ...] = (), **changes: Any) -> Any:
    options = TrainOptions(epochs=changes.pop("epochs", 2), learning_rate=5e-3, dimensions=dimensions)
    batching = BatchOptions(changes.pop("batch_size", 8), seq_length=16)
    files = DataOptions(data, **changes)
    return fine_tune("similarity", model, files, out, batching=batching, options=options, progress=False)


@pytest.mark.parametrize("dimensions", [(), (16, 4)])
@pytest.mark.parametrize("texts", [2, 3, "scored"])
def test_the_losses_are_those_of_sentence_transformers(texts: Any, dimensions: tuple[int, ...]) -> None:
    torch = pytest.importorskip("torch")
    losses = pytest.importorskip("sentence_transformers.sentence_transformer.losses")

    class HandOn(torch.nn.Module):  # type: ignore[name-defined, misc]
        """The model: its vectors are its inputs."""

        def get_embedding_dimension(self) -> int:
            return 16

        def forward(self, features: dict[str, Any]) -> dict[str, Any]:
            return {"sentence_embedding": features["vectors"]}

    rng, scored, model = np.random.default_rng(0), texts == "scored", HandOn()
    vectors = rng.normal(size=(6, 2 if scored else texts, 16)).astype("float32")
    labels = rng.uniform(-1, 1, 6).astype("float32")
    theirs = losses.CosineSimilarityLoss(model) if scored else losses.MultipleNegativesRankingLoss(model)
    if dimensions:
        theirs = losses.MatryoshkaLoss(model, theirs, list(dimensions))
    expected = theirs(
        [{"vectors": torch.tensor(one)} for one in vectors.swapaxes(0, 1)], torch.tensor(labels)
    )
    own = labels if scored else np.arange(vectors.shape[0] * vectors.shape[1]).reshape(vectors.shape[:2])
    assert float(SimilarityLoss(scored, dimensions)(own, vectors)) == pytest.approx(float(expected), abs=1e-5)


def test_a_copy_of_the_right_text_is_no_wrong_one() -> None:
    """A row with the same second or the same first text counts as if it were not there."""
    vectors = np.random.default_rng(1).normal(size=(3, 2, 8)).astype("float32")
    vectors[1, 1] = vectors[0, 1]
    loss = SimilarityLoss(scored=False)
    apart = [loss(np.arange(4).reshape(2, 2), vectors[list(rows)]) for rows in ((0, 2), (1, 2))]
    together = loss.call(np.array([[0, 1], [2, 1], [4, 5]]), vectors)
    own = [loss.call(np.arange(4).reshape(2, 2), vectors[list(rows)])[0] for rows in ((0, 2), (1, 2))]
    np.testing.assert_allclose(together[:2], own, atol=1e-5)
    assert all(np.isfinite(apart))
    same_first = loss.call(np.array([[0, 1], [0, 3], [4, 5]]), vectors)
    np.testing.assert_allclose(same_first[0], own[0], atol=1e-5)


def test_pooling_in_the_graph_is_that_of_the_encoder() -> None:
    states = np.random.default_rng(2).normal(size=(3, 5, 4)).astype("float32")
    mask = np.array([[1, 1, 1, 1, 1], [1, 1, 0, 0, 0], [1, 1, 1, 0, 0]])
    found = keras.ops.convert_to_numpy(pool(states, mask, POOLINGS))
    np.testing.assert_allclose(found, sentence_encoder.pool(states, mask, POOLINGS), atol=1e-6)  # type: ignore[arg-type]


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "metric"), [("scores", "spearman"), ("triplets", "recall_at_1")])
def test_it_learns_and_both_libraries_read_it(kind: str, metric: str, model: Path, tmp_path: Path) -> None:
    data = write(tmp_path / "a.jsonl", ROWS[kind])
    out = tmp_path / "out"
    result = tune(model, data, out, (32, 8), dev=data, epochs=25)
    task: Any = make_task("similarity", DataOptions(data), tiny_bert.tokenizer(), 16)
    untrained = task.evaluate(BertForSimilarity.from_pretrained(model), list(task.read(data)))
    assert result.best[f"dev_{metric}"] > untrained[metric] + 0.2
    assert result.history[-1]["loss"] < 0.8 * result.history[0]["loss"]
    best = result.best
    assert best[f"dev_{metric}_low"] <= best[f"dev_{metric}"] <= best[f"dev_{metric}_high"]
    assert best[f"dev_{metric}_of_32"] == pytest.approx(best[f"dev_{metric}"])
    ours = SentenceEncoder.from_pretrained(out)
    assert ours.options.stated
    vectors = ours.encode([a for a, _ in PAIRS])
    if kind == "triplets":
        others = ours.encode([row[name] for name in ("positive", "negative") for row in ROWS[kind]])
        nearest = ours.similarity(vectors, others).argmax(1)
        assert (nearest == np.arange(16)).mean() == pytest.approx(best[f"dev_{metric}"])
    st = pytest.importorskip("sentence_transformers")
    theirs = st.SentenceTransformer(str(out), device="cpu").encode([a for a, _ in PAIRS])
    np.testing.assert_allclose(vectors, theirs, atol=1e-5)


def test_options_of_the_model_go_on(model: Path, tmp_path: Path) -> None:
    """Pooling, normalization, prompts and the pooler's weights are those that the training started from."""
    options = SentenceOptions(
        ("cls", "mean"),
        normalize=True,
        prompts={"query": "who: "},
        default_prompt_name="query",
        max_seq_length=12,
    )
    start = tmp_path / "start"
    BertForSimilarity.from_pretrained(model).save_pretrained(start)
    for name in ("vocab.txt", "tokenizer_config.json"):
        (start / name).write_bytes((model / name).read_bytes())
    write_sentence_options(start, options, 32)
    tune(start, write(tmp_path / "a.jsonl", ROWS["pairs"]), tmp_path / "out", epochs=1)
    found = SentenceEncoder.from_pretrained(tmp_path / "out")
    assert (found.options.pooling, found.options.normalize, found.options.prompts) == (
        ("cls", "mean"),
        True,
        options.prompts,
    )
    assert found.max_seq_length == 12
    before, after = (load_file(folder / "model.safetensors") for folder in (start, tmp_path / "out"))
    assert before.keys() == after.keys()
    changed = {name for name in before if not np.array_equal(before[name], after[name])}
    assert any("layer.0" in name for name in changed)
    assert not any("pooler" in name for name in changed)


@pytest.mark.parametrize("modes", [("mean",), ("mean", "cls")])
def test_sentence_options_are_read_as_they_were_written(modes: Any, tmp_path: Path) -> None:
    options = SentenceOptions(
        modes,
        normalize=True,
        prompts={"a": "b"},
        max_seq_length=7,
        lower_case=True,
        truncate_dim=3,
        stated=True,
    )
    write_sentence_options(tmp_path, options, 8)
    assert read_sentence_options(tmp_path) == options
    assert set(POOLINGS) <= set(MODES)


BAD: list[tuple[list[dict[str, Any]], str]] = [
    (
        [{"text_a": "a", "text_b": "b", "score": 5}] * 4,
        "must be a number from -1 to 1; divide by the largest",
    ),
    ([{"text_a": "a", "text_b": "b", "score": "x"}] * 4, "must be a number from -1 to 1"),
    ([{"text": "a"}] * 4, "rename its columns"),
    ([*ROWS["pairs"], {"text_a": "a"}], "line 17 has no column 'text_b'"),
    ([], "empty"),
    (ROWS["pairs"][:1], "cannot be split"),
]


@pytest.mark.parametrize(("rows", "message"), BAD)
def test_bad_data_is_one_sentence(rows: Any, message: str, model: Path, tmp_path: Path) -> None:
    data = write(tmp_path / "a.jsonl", rows)
    with pytest.raises(ValueError, match=message):
        tune(model, data, tmp_path / "out", dev_fraction=0.1 if len(rows) != 0 else 0.0)
    assert not (tmp_path / "out").exists()


def test_other_refusals(model: Path, tmp_path: Path) -> None:
    pairs, scores = (write(tmp_path / f"{kind}.jsonl", ROWS[kind]) for kind in ("pairs", "scores"))
    with pytest.raises(ValueError, match="a batch of one pair"):
        tune(model, pairs, tmp_path / "out", batch_size=1)
    with pytest.raises(ValueError, match="has no scores unlike"):
        tune(model, pairs, tmp_path / "out", dev=scores)
    with pytest.raises(ValueError, match="a dimension is 64, but the vectors have 32"):
        tune(model, pairs, tmp_path / "out", dimensions=(64,))
    with pytest.raises(ValueError, match="give them with the task similarity"):
        make_task("classify", DataOptions(pairs), tiny_bert.tokenizer(), 16).head_arguments(
            TrainOptions(dimensions=(8,))
        )
    write_sentence_options(model, SentenceOptions(("lasttoken",)), 32)
    with pytest.raises(ValueError, match="has the pooling lasttoken"):
        tune(model, pairs, tmp_path / "out")


def test_recall_counts_every_text_that_belongs_to_the_first(tmp_path: Path) -> None:
    rows = [
        {"anchor": "who", "positive": "anna"},
        {"anchor": "who", "positive": "dog"},
        {"anchor": "where", "positive": "in"},
    ]
    task: Any = make_task(
        "similarity", DataOptions(write(tmp_path / "a.jsonl", rows)), tiny_bert.tokenizer(), 16
    )
    examples = list(task.read(task.data.train))
    vectors = np.array([[[1, 0.0], [1, 0.1]], [[1, 0], [0, 1]], [[0, 1], [1, 0]]])
    # "who" finds "in" at first, twice; then one of its two.
    assert task._metrics(examples, vectors)["recall_at_1"] == pytest.approx(0)
    vectors[2, 1] = [-1, 0]
    assert task._metrics(examples, vectors)["recall_at_1"] == pytest.approx(2 / 3)
