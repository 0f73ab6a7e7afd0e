"""`evaluate`: metrics of reference implementations, intervals, files of predictions, and the command."""

import json
import subprocess
import sys

import numpy as np
import pytest
import tiny_bert
from click.testing import CliRunner
from test_asking import TOKENIZER, saved

from tests.runtime.encoders import export_small
from tfbert_npu import BertForSequenceClassification, BertForTokenClassification
from tfbert_npu.cli import cli
from tfbert_npu.tasks import classify
from tfbert_npu.tasks.evaluation import (
    Prediction,
    difference,
    evaluate,
    read_examples,
    read_predictions,
    score,
    write_predictions,
)
from tfbert_npu.tasks.examples import TextExample
from tfbert_npu.tasks.text_files import DataError
from tfbert_npu.train.fine_tuning import save_tokenizer


def pairs(expected, found):
    return [Prediction(e, f) for e, f in zip(expected, found, strict=True)]


def test_classes_are_scikit_learns():
    metrics = pytest.importorskip("sklearn.metrics")
    rng = np.random.default_rng(0)
    expected, found = (rng.choice(list("abcd"), 200).tolist() for _ in range(2))
    found = [e if keep else f for e, f, keep in zip(expected, found, rng.random(200) < 0.6, strict=True)]
    result = score("classify", pairs(expected, found))
    assert result.metrics == {
        "accuracy": pytest.approx(metrics.accuracy_score(expected, found)),
        "f1_macro": pytest.approx(metrics.f1_score(expected, found, average="macro")),
        "mcc": pytest.approx(metrics.matthews_corrcoef(expected, found)),
    }
    low, high = result.interval
    # The normal approximation of a proportion's interval.
    p = result.metrics["accuracy"]
    half = 1.96 * np.sqrt(p * (1 - p) / 200)
    assert (low, high) == (pytest.approx(p - half, abs=0.015), pytest.approx(p + half, abs=0.015))


def test_correlations_are_scipys():
    stats = pytest.importorskip("scipy.stats")
    rng = np.random.default_rng(1)
    x = rng.normal(5, 1, 100)
    y = x + rng.normal(0, 1, 100)
    result = score("regression", pairs(x.tolist(), y.tolist()))
    assert result.metrics["pearson"] == pytest.approx(stats.pearsonr(x, y).statistic)
    assert result.metrics["spearman"] == pytest.approx(stats.spearmanr(x, y).statistic)
    assert result.interval[0] < result.metrics["pearson"] < result.interval[1]
    expected = stats.bootstrap((x, y), lambda a, b: stats.pearsonr(a, b).statistic, paired=True,
                               vectorized=False, method="percentile", n_resamples=1000, rng=0)  # fmt: skip
    assert result.interval == pytest.approx(tuple(expected.confidence_interval), abs=0.03)


def test_several_labels_entities_and_answers():
    several = score("classify", pairs([("a",), ("a", "b"), ()], [("a",), ("a",), ()]))
    assert (several.main, several.metrics["f1_micro"]) == ("f1_micro", pytest.approx(0.8))
    entities = score("ner", pairs([("B-X", "I-X", "O"), ("S-X",)][:1], [("B-X", "O", "O")]))
    assert entities.metrics == {"precision": 0, "recall": 0, "f1": 0, "token_accuracy": pytest.approx(2 / 3)}
    answers = score("qa", pairs([("The Cat",), ()], ["cat", ""]))
    assert answers.metrics == {"exact_match": 1.0, "f1": 1.0}


def test_the_difference_is_paired():
    rng = np.random.default_rng(2)
    expected = rng.choice(list("ab"), 300).tolist()
    first = pairs(expected, expected[:200] + ["c"] * 100)
    second = pairs(expected, expected[:230] + ["c"] * 70)
    change, (low, high) = difference("classify", first, second)
    assert change == pytest.approx(0.1)
    assert 0.06 < low < 0.1 < high < 0.14
    assert difference("classify", first, first) == (0.0, (0.0, 0.0))
    with pytest.raises(ValueError, match="other examples"):
        difference("classify", first, first[:10])


def test_files_of_predictions(tmp_path):
    path = tmp_path / "p.jsonl"
    rows = pairs(["a", ("B-X", "O"), 1.5], ["b", ("O", "O"), 2.0])
    write_predictions(path, rows)
    lines = path.read_text().splitlines()
    path.write_text("\n".join(reversed(lines)))
    assert read_predictions(path) == rows
    for content, message in [
        ("\n".join([*lines, lines[0]]), "line 4: row 0 is there twice"),
        ("\n".join(lines[1:]), "has no row 0"),
        ("\n".join([lines[0], lines[2]]), "has no row 1"),
        ("", "has no row 0"),
        ('{"row": 0}', "must hold row, expected and found"),
        ('{"row": 0, "expected": "a", "found": {}}', "must be a text, a number, or a list"),
    ]:
        path.write_text(content)
        with pytest.raises(DataError, match=message):
            read_predictions(path)


def test_a_label_that_the_model_lacks():
    model = lambda inputs: np.zeros((len(inputs["input_mask"]), 2), np.float32)  # noqa: E731
    with pytest.raises(ValueError, match="label 'c', which is none of the model's 2 labels"):
        evaluate("classify", model, TOKENIZER, [TextExample("x", None, "c")], labels=["a", "b"])
    with pytest.raises(ValueError, match="no examples"):
        evaluate("classify", model, TOKENIZER, [], labels=["a", "b"])
    with pytest.raises(ValueError, match="task must be one of"):
        evaluate("sing", model, TOKENIZER, [TextExample("x", None, "c")])


@pytest.fixture
def classifier(tmp_path):
    model = saved(BertForSequenceClassification, tmp_path / "model", labels=["good", "bad"])
    texts = [f"the {word} {other}" for word in tiny_bert.WORDS for other in ("cat", "dog")]
    found = [row[0].label for row in classify(model, TOKENIZER, texts)]
    labels = ["good" if index % 4 == 0 else label for index, label in enumerate(found)]
    lines = [f"{text},{label}" for text, label in zip(texts, labels, strict=True)]
    (tmp_path / "a.csv").write_text("text,label\n" + "\n".join(lines) + "\n")
    return tmp_path, float(np.mean([a == b for a, b in zip(found, labels, strict=True)]))


def run(*arguments):
    return CliRunner().invoke(cli, ["evaluate", *map(str, arguments)])


def test_the_command(classifier, monkeypatch):
    directory, accuracy = classifier
    model, data, out = directory / "model", directory / "a.csv", directory / "p.jsonl"
    result = run("classify", model, "--data", data, "--predictions", out, "--json")
    assert result.exit_code == 0, result.output
    (first,) = json.loads(result.stdout)
    assert first["metrics"]["accuracy"] == pytest.approx(accuracy)
    assert first["examples"] == 26
    result = run("classify", "--score", out, "--score", out, "--json")
    one, two = json.loads(result.stdout)
    assert one["metrics"] == first["metrics"]
    assert two["difference"] == {"value": 0.0, "interval": [0.0, 0.0]}
    assert f"{accuracy:.4f}" in run("classify", "--score", out, "--data", data).output
    assert "exists already" in str(run("classify", model, "--data", data, "--predictions", out).exception)
    (directory / "b.csv").write_text("text,label\nx,good\n")
    assert "26 rows but" in str(run("classify", "--score", out, "--data", directory / "b.csv").exception)
    (directory / "b.csv").write_text("text,label\n")
    assert "is empty" in str(run("classify", model, "--data", directory / "b.csv").exception)
    assert run("classify").exit_code == 2
    assert run("classify", model).exit_code == 2
    monkeypatch.setenv("XDG_CACHE_HOME", str(directory / "cache"))
    result = run("classify", model, "--data", data, "--backend", "onnx", "--json")
    (converted,) = json.loads(result.stdout)
    assert converted["metrics"]["accuracy"] == pytest.approx(accuracy)


def test_an_artifact_beside_its_checkpoint(classifier):
    directory, accuracy = classifier
    model = BertForSequenceClassification.from_pretrained(directory / "model")
    export_small(model, directory / "artifact")
    save_tokenizer(TOKENIZER, directory / "artifact", "bert", 64)
    result = run(
        "classify", directory / "model", directory / "artifact", "--data", directory / "a.csv", "--json"
    )
    assert result.exit_code == 0, result.exception
    checkpoint, artifact = json.loads(result.stdout)
    assert artifact["metrics"] == checkpoint["metrics"]
    assert artifact["metrics"]["accuracy"] == pytest.approx(accuracy)
    assert artifact["difference"]["value"] == 0.0
    saved(BertForSequenceClassification, directory / "other", labels=["good", "worse"])
    result = run("classify", directory / "model", directory / "other", "--data", directory / "a.csv")
    assert "other has other labels than" in str(result.exception)


def test_entities_by_the_command(tmp_path):
    saved(BertForTokenClassification, tmp_path / "model", labels=["O", "B-PER", "E-PER"])
    (tmp_path / "a.conll").write_text("anna\tB-PER\nlee\tE-PER\n\nthe\tO\n")
    result = run("ner", tmp_path / "model", "--data", tmp_path / "a.conll", "--json")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)[0]["metrics"].keys() == {"precision", "recall", "f1", "token_accuracy"}
    assert len(read_examples("ner", tmp_path / "a.conll")) == 2


def test_no_tensorflow_where_none_is_needed(tmp_path):
    write_predictions(tmp_path / "p.jsonl", pairs(["a", "b"], ["a", "a"]))
    code = (
        "import sys; from tfbert_npu.cli import cli; "
        f"cli(['evaluate', 'classify', '--score', {str(tmp_path / 'p.jsonl')!r}], standalone_mode=False); "
        "assert not {'tensorflow', 'keras', 'onnx'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
