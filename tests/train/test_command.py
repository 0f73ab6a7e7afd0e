"""`tfbert-npu train` for every task, on a tiny model: exit codes, results, and what is left behind."""

import json

import keras
import pytest
import tiny_bert
from click.testing import CliRunner
from safetensors.numpy import load_file

from tfbert_npu import (
    BertForMaskedLM,
    BertForPreTraining,
    BertForSequenceClassification,
    BertForTokenClassification,
)
from tfbert_npu.cli import cli
from tfbert_npu.train.batches import Batches, BatchOptions
from tfbert_npu.train.loop import train
from tfbert_npu.train.options import TrainOptions

COMMON = ["--epochs", "2", "--batch-size", "4", "--learning-rate", "5e-3", "--no-progress", "--json"]


@pytest.fixture
def deterministic():
    """The command makes TensorFlow deterministic for its process; the tests after it go on as they were."""
    from tensorflow.python.framework import config  # there is no public way back

    yield

    config.disable_op_determinism()


def run(*arguments):
    result = CliRunner().invoke(cli, ["train", *map(str, arguments)], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout.splitlines()[-1])


def write_data(task, directory):
    """A data file of the task, and the options that go with it."""
    if task in ("classify", "pair", "regression"):
        label = {"regression": ("1.5", "-0.5")}.get(task, ("good", "bad"))
        rows = [f"the cat,anna ran,{label[0]}", f"a dog,who,{label[1]}"] * 8
        (directory / "a.csv").write_text("text,other,label\n" + "\n".join(rows) + "\n")
        return directory / "a.csv", ["--pair-column", "other"] if task == "pair" else []
    if task == "choice":
        rows = ["the cat,sat,xyz,0", "a dog,qqq,ran,1"] * 8
        (directory / "a.csv").write_text("text,a,b,label\n" + "\n".join(rows) + "\n")
        return directory / "a.csv", ["--choice-column", "a", "--choice-column", "b"]
    if task == "ner":
        (directory / "a.conll").write_text("anna\tB-PER\nran\tO\n\nthe\tO\ndog\tO\n\n" * 8)
        return directory / "a.conll", []
    if task == "qa":
        context = "anna ran. the cat sat in berlin."
        paragraphs = [
            {
                "context": context,
                "qas": [
                    {"id": f"{i}", "question": "who?", "answers": [{"text": "anna", "answer_start": 0}]},
                ],
            }
            for i in range(2)
        ]
        data = [{"title": f"{i}", "paragraphs": paragraphs} for i in range(4)]
        (directory / "a.json").write_text(json.dumps({"data": data}))
        return directory / "a.json", ["--stride", "8"]
    (directory / "a.txt").write_text("the cat sat.\nthe dog ran.\n\nanna sat in berlin.\n\n" * 8)
    return directory / "a.txt", ["--dev", directory / "a.txt"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("task", "metric"),
    [
        ("classify", "dev_accuracy"),
        ("pair", "dev_accuracy"),
        ("regression", "dev_pearson"),
        ("choice", "dev_accuracy"),
        ("ner", "dev_f1"),
        ("qa", "dev_exact_match"),
        ("mlm", "dev_perplexity"),
    ],
)
def test_every_task(task, metric, tmp_path, deterministic):
    model = tiny_bert.write_checkpoint(tmp_path / "model")
    data, more = write_data(task, tmp_path)
    best = run(model, "--task", task, "--train", data, "--out", tmp_path / "out", "--seq-length", 32,
               *COMMON, *more)  # fmt: skip
    assert metric in best
    assert json.loads((tmp_path / "out" / "results.json").read_text()) == best
    if task == "mlm":
        BertForMaskedLM.from_pretrained(tmp_path / "out")


@pytest.mark.slow
def test_next_sentences_from_raw_text(tmp_path, deterministic):
    model = tiny_bert.write_checkpoint(tmp_path / "model")
    data, more = write_data("mlm", tmp_path)
    options = ["--train", data, "--out", tmp_path / "out", "--seq-length", 24, "--short-seq-prob", 0.5]
    best = run(model, "--task", "mlm", "--next-sentence", "--no-cache", *options, *COMMON, *more)
    assert best.keys() >= {"dev_perplexity", "dev_mlm_accuracy", "dev_nsp_accuracy"}
    BertForPreTraining.from_pretrained(tmp_path / "out")


@pytest.mark.slow
def test_new_weights_for_a_task(tmp_path, deterministic):
    """Nothing of the checkpoint beside the configuration is read."""
    model = tiny_bert.write_checkpoint(tmp_path / "model")
    (model / "model.safetensors").unlink()
    data, _ = write_data("ner", tmp_path)
    run(
        model,
        "--task",
        "ner",
        "--new",
        "--train",
        data,
        "--out",
        tmp_path / "out",
        "--seq-length",
        16,
        *COMMON,
    )
    trained = BertForTokenClassification.from_pretrained(tmp_path / "out")
    assert trained.config.id2label == ("B-PER", "I-PER", "O")


@pytest.mark.slow
def test_the_same_seed_gives_the_same_model(tmp_path, deterministic):
    model = tiny_bert.write_checkpoint(tmp_path / "model")
    data, _ = write_data("classify", tmp_path)
    weights = []
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        run(model, "--task", "classify", "--train", data, "--out", tmp_path / name, "--seed", seed,
            "--seq-length", 16, *COMMON)  # fmt: skip
        weights.append(load_file(tmp_path / name / "model.safetensors")["classifier.weight"])
    assert (weights[0] == weights[1]).all()
    assert (weights[0] != weights[2]).any()


def test_bad_usage_and_failed_work(tmp_path, deterministic):
    run_ = CliRunner().invoke
    assert run_(cli, ["train", "x", "--task", "sing", "--train", "a", "--out", "b"]).exit_code == 2
    assert run_(cli, ["train", "x", "--task", "ner", "--train", "a"]).exit_code == 2
    model = tiny_bert.write_checkpoint(tmp_path / "model")
    (tmp_path / "a.csv").write_text("sentence,label\nx,y\n")
    result = run_(
        cli,
        [
            "train",
            str(model),
            "--task",
            "classify",
            "--train",
            str(tmp_path / "a.csv"),
            "--out",
            str(tmp_path / "out"),
        ],
    )
    assert isinstance(result.exception, ValueError)
    assert "has no column 'text'; it has 'sentence', 'label'" in str(result.exception)


@pytest.mark.slow
@pytest.mark.parametrize(
    "options", [{"jit_compile": True}, {"precision": "mixed_bfloat16"}, {"tensorboard": True}]
)
@pytest.mark.filterwarnings("error:.*jit_compile:UserWarning")
def test_xla_bfloat16_and_tensorboard(tmp_path, options):
    from test_training import rows

    settings = TrainOptions(epochs=6, learning_rate=1e-2, **options)
    keras.utils.set_random_seed(0)
    model = BertForSequenceClassification(tiny_bert.config(), num_labels=2, dtype=settings.precision)
    batches = Batches(rows, BatchOptions(batch_size=8, seq_length=16, pad_to=None))
    history = train(model, batches, settings, tmp_path, progress=False)
    assert history[-1]["loss"] < history[0]["loss"]
    assert bool(list(tmp_path.glob("tensorboard/**/events*"))) == ("tensorboard" in options)
