"""`tasks.load`: one object for every task; an artifact answers as its checkpoint does, without TensorFlow."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tiny_bert
from click.testing import CliRunner

from tests.runtime.artifacts import change_manifest
from tfbert_npu import (
    BertEncoder,
    BertForMaskedLM,
    BertForQuestionAnswering,
    BertForSequenceClassification,
    BertForTokenClassification,
    export_onnx,
    export_saved_model,
    tasks,
)
from tfbert_npu.artifact.hashing import sha256_of
from tfbert_npu.artifact.manifest import Manifest, SupportFile
from tfbert_npu.cli import cli
from tfbert_npu.errors import MissingExtraError, TaskError
from tfbert_npu.preprocess.saving import save_tokenizer

HEADS: dict[str, tuple[Any, dict[str, Any]]] = {
    "embed": (BertEncoder, {}),
    "classify": (BertForSequenceClassification, {"labels": ["x", "y", "z"]}),
    "ner": (BertForTokenClassification, {"labels": ["B-PER", "I-PER", "B-LOC"]}),
    "qa": (BertForQuestionAnswering, {}),
    "fill-mask": (BertForMaskedLM, {}),
    "regression": (BertForSequenceClassification, {"num_labels": 1}),
}
TEXTS = "the cat [MASK] in berlin.\nanna ran [MASK]\n" + "a good dog " * 12 + "[MASK]\n"
TOKENIZER = tiny_bert.tokenizer()


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """For each head a checkpoint, and its artifact for the CPU."""
    root = tmp_path_factory.mktemp("models")
    (root / "texts").write_text(TEXTS)
    keras.utils.set_random_seed(1)
    for name, (head, options) in HEADS.items():
        model = head(tiny_bert.config(initializer_range=0.3), **options)
        model.build()
        model.save_pretrained(root / name)
        save_tokenizer(TOKENIZER.vocabulary, TOKENIZER.options, root / name)
        export_onnx(root / name, root / f"{name}-onnx", check=False)
    return root


def command(models: Path, name: str, directory: str) -> list[str]:
    if name == "qa":
        return ["qa", str(models / directory), "--question", "who ran?", "--context", str(models / "texts")]
    asked = "classify" if name == "regression" else name
    return [asked, str(models / directory), "--input", str(models / "texts")]


def as_json(name: str) -> list[str]:
    return [] if name == "embed" else ["--json"]


def test_every_command_on_an_artifact_without_tensorflow(models: Path) -> None:
    """Each answer of the ONNX artifact is the TensorFlow backend's, to 1e-4."""
    commands = [
        [*command(models, name, f"{name}-onnx"), *as_json(name), "--backend", backend]
        for name in HEADS
        for backend in ("onnx", "auto")
    ]
    check_answers(models, commands, 2)


def test_every_command_on_a_converted_checkpoint_without_tensorflow(
    models: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The first start converts; the next has neither TensorFlow nor the package that writes ONNX."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    for name in HEADS:
        with tasks.load(models / name, "embed" if name == "embed" else None, "onnx") as model:
            assert model.runs_on == "onnx"
    commands = [[*command(models, name, name), *as_json(name), "--backend", "onnx"] for name in HEADS]
    check_answers(models, commands, 1)


def check_answers(models: Path, commands: list[list[str]], times: int) -> None:
    """In a new process without TensorFlow; for each of `HEADS` there are `times` commands."""
    code = """
import json, sys
from tfbert_npu.artifact.hashing import sha256_of
from tfbert_npu.artifact.manifest import Manifest, SupportFile
from tfbert_npu.cli import cli
for command in json.loads(sys.argv[1]):
    cli(command, standalone_mode=False)
    print("-")
loaded = {"tensorflow", "keras", "torch", "transformers", "huggingface_hub", "onnx"} & set(sys.modules)
assert not loaded, loaded
"""
    result = subprocess.run(
        [sys.executable, "-c", code, json.dumps(commands)], capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    answers = iter(result.stdout.removesuffix("-\n").split("-\n"))
    for name in HEADS:
        wanted = CliRunner().invoke(
            cli, [*command(models, name, name), *as_json(name), "--backend", "tf"], catch_exceptions=False
        )
        assert wanted.exit_code == 0
        expected = [json.loads(line) for line in wanted.stdout.splitlines()]
        assert expected
        for _ in range(times):
            close([json.loads(line) for line in next(answers).splitlines()], expected)


def close(found: Any, expected: Any) -> None:
    if isinstance(expected, dict):
        assert list(found) == list(expected)
        for name in expected:
            close(found[name], expected[name])
    elif isinstance(expected, list):
        assert len(found) == len(expected)
        for one, other in zip(found, expected, strict=True):
            close(one, other)
    elif isinstance(expected, float):
        assert found == pytest.approx(expected, abs=1e-4)
    else:
        assert found == expected


def test_answers_have_the_names_of_transformers(models: Path) -> None:
    texts = TEXTS.splitlines()
    with tasks.load(models / "fill-mask-onnx", backend="onnx") as model:
        (((best, *_),), *_) = tasks.fill_mask(model, texts)
    before, after = TOKENIZER.encode("the cat"), TOKENIZER.encode("in berlin.")
    assert best.sequence == TOKENIZER.decode([*before, best.token, *after], skip_special_tokens=True)
    assert TOKENIZER.vocabulary.tokens[best.token] == best.token_str
    with tasks.load(models / "ner-onnx", backend="onnx") as model:
        entities = [one for row in tasks.ner(model, texts) for one in row]
        assert tasks.ner(model, TOKENIZER, texts) == tasks.ner(model, texts)  # the order of 0.1
        assert tasks.ner(model, preprocessor=TOKENIZER, texts=texts) == tasks.ner(model, texts=texts)
    assert entities
    assert {one.entity_group for one in entities} <= {"PER", "LOC"}
    assert all(one.word for one in entities)


def test_three_lines_for_each_task(models: Path) -> None:
    model = tasks.load(models / "classify-onnx", backend="onnx")
    assert {one.label for one in tasks.classify(model, "anna ran")[0]} == {"x", "y", "z"}
    assert (model.labels, model.runs_on) == (("x", "y", "z"), "onnx")
    examples = [tasks.TextExample("anna ran", None, "x"), tasks.TextExample("the cat", None, "y")]
    assert len(tasks.evaluate("classify", model, examples).predictions) == 2
    number = tasks.classify(tasks.load(models / "regression-onnx", backend="onnx"), "anna ran")
    assert [one.label for one in number[0]] == ["LABEL_0"]
    encoder = tasks.load(models / "embed-onnx", backend="onnx")
    vectors = tasks.embed(encoder, ["anna ran", "the cat"])
    again = tasks.embed(["anna ran", "the cat"], encoder.run, TOKENIZER)
    np.testing.assert_allclose(vectors, again, atol=1e-5)
    assert tasks.embed(encoder, "anna ran", pooling="cls").shape == (1, 32)


@pytest.mark.parametrize("backend", ["tf", "onnx"])
@pytest.mark.parametrize(
    ("asked", "given", "message"),
    [
        ("ner", "classify", "has the head sequence_classification, which is for classify, pair, "),
        ("classify", "embed", "has the head encoder, which is for embed, similarity, not for classify"),
        ("qa", "ner", "has the head token_classification, which is for ner, not for qa"),
        ("fill-mask", "qa", "has the head question_answering, which is for qa, not for fill-mask"),
    ],
)
def test_the_wrong_head(models: Path, backend: str, asked: str, given: str, message: str) -> None:
    directory = given if backend == "tf" else f"{given}-onnx"
    arguments = [*command(models, asked, directory), "--backend", backend]
    result = CliRunner().invoke(cli, arguments)
    assert isinstance(result.exception, TaskError)
    assert message in str(result.exception)
    ask = {"classify": tasks.classify, "ner": tasks.ner, "qa": tasks.answer, "fill-mask": tasks.fill_mask}
    loaded = tasks.load(models / directory, backend=backend)  # type: ignore[arg-type]
    with pytest.raises(TaskError, match=message):
        ask[asked](loaded, ["a"])  # type: ignore[operator]


def test_embed_takes_the_encoder_of_a_checkpoint_and_no_other_artifact(models: Path) -> None:
    assert tasks.load(models / "classify", "embed").head.name == "encoder"  # type: ignore[union-attr]
    with pytest.raises(TaskError, match=r"which is for classify, .*, not for embed"):
        tasks.load(models / "classify-onnx", "embed", "onnx")


def test_a_head_without_its_weights(models: Path, tmp_path: Path) -> None:
    BertEncoder(tiny_bert.config()).save_pretrained(tmp_path)
    save_tokenizer(TOKENIZER.vocabulary, TOKENIZER.options, tmp_path)
    path = tmp_path / "config.json"
    path.write_text(path.read_text().replace('"BertModel"', '"BertForTokenClassification"'))
    with pytest.raises(ValueError, match=r"is a BertForTokenClassification without classifier\.weight"):
        tasks.load(tmp_path, "ner")


def without_labels(directory: Path, target: Path) -> Path:
    shutil.copytree(directory, target)
    values = json.loads((target / "config.json").read_text())
    values.pop("id2label", None), values.pop("label2id", None)
    (target / "config.json").write_text(json.dumps(values))
    support = [
        SupportFile(one.path, one.kind, sha256_of(target / one.path), (target / one.path).stat().st_size)
        for one in Manifest.read(target).support
    ]
    change_manifest(target, support=tuple(support))
    return target


def test_an_artifact_without_labels(models: Path, tmp_path: Path) -> None:
    with tasks.load(without_labels(models / "classify-onnx", tmp_path / "c"), backend="onnx") as model:
        with pytest.raises(TaskError, match="scores 3 labels but 2 are named; pass labels=, or name them in"):
            tasks.classify(model, "anna ran")
        assert tasks.classify(model, "anna ran", labels=["x", "y", "z"])
    with tasks.load(without_labels(models / "ner-onnx", tmp_path / "n"), backend="onnx") as model:
        with pytest.raises(TaskError, match="names no labels, so that no entity has a kind"):
            tasks.ner(model, "anna ran")
        with pytest.raises(TaskError, match="names no labels"):
            tasks.evaluate("ner", model, [tasks.TaggedExample(("anna",), ("B-PER",))])


def test_a_backend_that_is_not_there(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'tfbert-npu\[onnx\]'"):
        tasks.load(models / "classify-onnx", backend="onnx")
    monkeypatch.setitem(sys.modules, "tensorflow", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'tfbert-npu\[tf\]'"):
        tasks.load(models / "classify")
    with pytest.raises(MissingExtraError, match=r"pip install 'tfbert-npu\[onnx\]'"):
        tasks.load(models / "classify", backend="onnx")
    with pytest.raises(ValueError, match=r"backend='simulator' runs an artifact, and .* is a checkpoint"):
        tasks.load(models / "classify", backend="simulator")
    with pytest.raises(ValueError, match="backend='tf' cannot run the artifact"):
        tasks.load(models / "classify-onnx", backend="tf")
    with pytest.raises(ValueError, match="backend must be one of tf, auto, "):
        tasks.load(models / "classify", backend="cuda")  # type: ignore[arg-type]


def test_an_artifact_without_a_vocabulary_is_said_at_its_export(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model = BertForSequenceClassification(tiny_bert.config(), labels=["x", "y"])
    export_onnx(model, tmp_path / "onnx", check=False)
    assert "came without a vocabulary, so no command can ask the artifact; pass tokenizer=" in caplog.text
    with pytest.raises(FileNotFoundError, match="holds no vocabulary"):
        tasks.load(tmp_path / "onnx", backend="onnx")


def test_a_tf_hub_encoder_brings_its_vocabulary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is an asset of the SavedModel: the encoder is embedded as it is, and so is an artifact of it."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    encoder = BertEncoder(tiny_bert.config(initializer_range=0.3))
    encoder.build()
    (tmp_path / "words.txt").write_text(TOKENIZER.vocabulary.to_text())
    encoder.vocab_file, encoder.do_lower_case = str(tmp_path / "words.txt"), True
    export_saved_model(encoder, tmp_path / "hub")
    export_onnx(tmp_path / "hub", tmp_path / "onnx", check=False)
    texts = ["Anna ran", "the cat sat in Berlin."]
    expected = tasks.embed(texts, encoder, TOKENIZER)
    for name, backend in (("hub", "tf"), ("onnx", "onnx"), ("hub", "onnx"), ("hub", "onnx")):
        with tasks.load(tmp_path / name, "embed", backend) as loaded:  # type: ignore[arg-type]
            np.testing.assert_allclose(tasks.embed(loaded, texts), expected, atol=1e-5)


def test_answers_come_line_by_line(models: Path) -> None:
    """A terminal or a pipe gets its answer before the next question."""
    arguments = [sys.executable, "-m", "tfbert_npu", "classify", str(models / "classify-onnx")]
    with subprocess.Popen(
        arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        for text in ("anna ran", "the cat"):
            process.stdin.write(f"{text}\n")
            process.stdin.flush()
            assert process.stdout.readline().endswith(f"\t{text}\n")
        process.stdin.write("no line end")
        process.stdin.close()
        assert process.stdout.read().endswith("\tno line end\n")
