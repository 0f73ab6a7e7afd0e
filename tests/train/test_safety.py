"""What is damaged, changed or in use is said before work begins; nothing is overwritten unasked."""

import json
import os
import signal
import subprocess
import sys
import textwrap
from collections import Counter
from dataclasses import replace
from pathlib import Path

import keras
import numpy as np
import pytest
import tiny_bert
from click.testing import CliRunner

from tfbert_npu import BertForSequenceClassification
from tfbert_npu.cli import cli
from tfbert_npu.cli.train import _shown
from tfbert_npu.errors import CheckpointError
from tfbert_npu.tasks.evaluation import Prediction, score
from tfbert_npu.tasks.examples import ChoiceExample, TextExample
from tfbert_npu.train import fine_tuning, out_directory
from tfbert_npu.train.advice import cut_texts, few, options_for, text_lengths
from tfbert_npu.train.batches import Batches, BatchOptions
from tfbert_npu.train.data_options import DataOptions
from tfbert_npu.train.features import Feature
from tfbert_npu.train.fine_tuning import fine_tune
from tfbert_npu.train.kinds import make_task
from tfbert_npu.train.loop import train
from tfbert_npu.train.options import TrainOptions
from tfbert_npu.train.out_directory import LOCK, OutDirectoryError, check_out, locked
from tfbert_npu.train.split import divide, held_out_rows
from tfbert_npu.train.starting_point import freeze
from tfbert_npu.train.state import FILE

OPTIONS = TrainOptions(epochs=2, learning_rate=1e-3)
BATCHING = BatchOptions(batch_size=4, seq_length=16)


class StoppedError(Exception):
    pass


def write_csv(path, rows=24, labels=("good", "bad")):
    lines = [f"the {('cat', 'dog')[i % 2]},{labels[i % 2]}" for i in range(rows)]
    path.write_text("text,label\n" + "\n".join(lines) + "\n")
    return path


def interrupt_after_one_epoch(tmp_path, monkeypatch, **changes):
    """A training stopped in its second epoch; gives what to call to go on."""
    model = tiny_bert.write_checkpoint(tmp_path / "model")
    data = write_csv(tmp_path / "a.csv")

    def start(**more):
        settings = {
            "batching": BATCHING,
            "options": OPTIONS,
            "data": DataOptions(data),
            "model": model,
            **more,
        }
        return fine_tune("classify", out=tmp_path / "out", progress=False, **settings)

    seen = []

    def evaluate(*arguments):
        seen.append(1)
        if len(seen) == 2:
            raise StoppedError
        return {"accuracy": 0.5}

    with monkeypatch.context() as patch:
        patch.setattr("tfbert_npu.train.tasks.TextTask.evaluate", evaluate)
        with pytest.raises(StoppedError):
            start(**changes)
    assert (tmp_path / "out" / FILE).is_file()
    assert not (tmp_path / "out" / LOCK).exists()
    return start, data, model


def test_a_changed_training_is_not_gone_on_with(tmp_path, monkeypatch):
    start, data, model = interrupt_after_one_epoch(tmp_path, monkeypatch)
    before = (tmp_path / "out" / FILE).read_bytes()
    for changes, part in [
        ({"options": replace(OPTIONS, learning_rate=2e-3)}, r"learning_rate \(0.001, now 0.002\)"),
        ({"options": replace(OPTIONS, freeze=("embeddings",))}, "freeze"),
        ({"batching": replace(BATCHING, batch_size=8)}, r"batch_size \(4, now 8\)"),
        ({"batching": replace(BATCHING, seq_length=24)}, r"seq_length \(16, now 24\)"),
        ({"lora_rank": 2}, "lora"),
        ({"data": DataOptions(data, labels=("good", "bad"))}, "labels"),
    ]:
        with pytest.raises(CheckpointError, match=f"belongs to a training with other .*{part}"):
            start(**changes)
    content = data.read_text()
    for changed in (
        content.replace("good", "?").replace("bad", "good").replace("?", "bad"),  # labels swapped
        "\n".join(content.splitlines()[:9]),  # fewer rows than the epoch has batches: hung for ever
        content + "the cat,bad\n",
    ):
        data.write_text(changed)
        with pytest.raises(CheckpointError, match="with other data"):
            start()
    data.write_text(content)
    keras.utils.set_random_seed(9)
    tiny_bert.write_checkpoint(tmp_path / "other")
    with pytest.raises(CheckpointError, match="with other starting weights"):
        start(model=tmp_path / "other")
    (model / "vocab.txt").write_text("\n".join([*tiny_bert.TOKENS[:-2], *tiny_bert.TOKENS[:-3:-1]]) + "\n")
    with pytest.raises(CheckpointError, match="vocabulary"):
        start()
    (model / "vocab.txt").write_text("\n".join(tiny_bert.TOKENS) + "\n")
    assert (tmp_path / "out" / FILE).read_bytes() == before
    assert len(start(options=replace(OPTIONS, save_every=1)).history) == 2
    assert not (tmp_path / "out" / FILE).exists()


def test_a_flipped_bit_is_found(tmp_path, monkeypatch):
    start, *_ = interrupt_after_one_epoch(tmp_path, monkeypatch)
    state = tmp_path / "out" / FILE
    whole = state.read_bytes()
    for place in (len(whole) - 5, len(whole) // 2, 300):
        damaged = bytearray(whole)
        damaged[place] ^= 1
        state.write_bytes(damaged)
        with pytest.raises(CheckpointError, match="is damaged"):
            start()
    for content in (b"", b"x" * 100, whole[:-10]):
        state.write_bytes(content)
        with pytest.raises(CheckpointError, match="is damaged"):
            start()
    assert len(start(overwrite=True).history) == 2


def test_a_finished_directory_is_kept(tmp_path):
    model = tiny_bert.write_checkpoint(tmp_path / "model")
    data = DataOptions(write_csv(tmp_path / "a.csv"))
    start = {"batching": BATCHING, "options": replace(OPTIONS, epochs=1), "progress": False}
    fine_tune("classify", model, data, tmp_path / "out", **start)
    before = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    with pytest.raises(OutDirectoryError, match=r"holds config.json, .*--overwrite"):
        fine_tune("classify", model, data, tmp_path / "out", **start)
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()} == before
    assert fine_tune("classify", model, data, tmp_path / "out", overwrite=True, **start).history
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign" / "config.json").write_text("{}")
    with pytest.raises(OutDirectoryError, match=r"foreign holds config.json already"):
        fine_tune("classify", model, data, tmp_path / "foreign", **start)
    with pytest.raises(OutDirectoryError, match="is no directory"):
        check_out(tmp_path / "a.csv", overwrite=True)


def test_two_trainings_on_one_directory(tmp_path):
    code = textwrap.dedent(
        """
        import sys, pathlib
        from tfbert_npu.train.out_directory import locked
        with locked(pathlib.Path(sys.argv[1])):
            print("held", flush=True)
            sys.stdin.read()
        """
    )
    other = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path / "out")], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        text=True, cwd=os.path.dirname(os.path.dirname(os.path.dirname(__file__))),
    )  # fmt: skip
    assert other.stdout.readline() == "held\n"
    with pytest.raises(OutDirectoryError, match=f'another training writes to .*"pid": {other.pid}'):
        locked(tmp_path / "out").__enter__()
    other.send_signal(signal.SIGKILL)
    other.communicate(timeout=60)
    with locked(tmp_path / "out"):  # what a killed one left is taken over
        assert json.loads((tmp_path / "out" / LOCK).read_text())["pid"] == os.getpid()
    assert not (tmp_path / "out" / LOCK).exists()


def test_the_lock_of_another_machine(tmp_path):
    (tmp_path / LOCK).write_text('{"host": "elsewhere", "pid": 1}')
    with pytest.raises(OutDirectoryError, match=r"a training on elsewhere writes to .* remove that file"):
        locked(tmp_path).__enter__()
    assert (tmp_path / LOCK).exists()
    (tmp_path / LOCK).write_text("")
    with locked(tmp_path):
        pass
    with pytest.raises(ValueError), locked(tmp_path / "new"):
        raise ValueError
    assert not (tmp_path / "new").exists()


def test_fewer_batches_than_one_update(tmp_path):
    rows = [Feature([2, 3], [0, 0], 0)] * 3
    model = BertForSequenceClassification(tiny_bert.config(), num_labels=2)
    with pytest.raises(ValueError, match="2 epochs of 1 batches are less than the 3 batches of one update"):
        train(model, Batches(lambda: rows, BATCHING), replace(OPTIONS, accumulate=3), tmp_path / "o")
    with pytest.raises(ValueError, match="3 rows, less than one batch of 4"):
        Batches(lambda: rows, replace(BATCHING, drop_remainder=True))
    assert not (tmp_path / "o").exists()


@pytest.mark.parametrize("which", ["dev", "test"])
def test_a_label_that_training_lacks(tmp_path, which, monkeypatch):
    monkeypatch.setattr(fine_tuning, "head_of", lambda *a, **k: pytest.fail("work has begun"))
    model = tiny_bert.write_checkpoint(tmp_path / "model")
    write_csv(tmp_path / "a.csv")
    (tmp_path / "b.csv").write_text("text,label\nx,good\ny,ugly\n")
    data = DataOptions(tmp_path / "a.csv", **{which: tmp_path / "b.csv"})
    with pytest.raises(ValueError, match=r"b\.csv has labels that the training data lacks: 'ugly'"):
        fine_tune("classify", model, data, tmp_path / "out")
    (tmp_path / "a.conll").write_text("anna B-PER\n\n" * 4)
    (tmp_path / "b.conll").write_text("paris B-LOC\n")
    data = DataOptions(tmp_path / "a.conll", **{which: tmp_path / "b.conll"})
    with pytest.raises(ValueError, match="lacks: 'B-LOC'"):
        fine_tune("ner", model, data, tmp_path / "out")


def test_a_test_split_reports_the_best_model(tmp_path):
    model = tiny_bert.write_checkpoint(tmp_path / "model")
    write_csv(tmp_path / "b.csv", 8)
    data = DataOptions(write_csv(tmp_path / "a.csv", 40), test=tmp_path / "b.csv")
    result = fine_tune("classify", model, data, tmp_path / "out", batching=BATCHING, progress=False,
                       options=TrainOptions(epochs=6, learning_rate=1e-2))  # fmt: skip
    assert result.best["test_accuracy"] == result.best["dev_accuracy"] == 1.0
    assert (result.best["test_accuracy_low"], result.best["test_accuracy_high"]) == (1.0, 1.0)
    assert json.loads((tmp_path / "out" / "results.json").read_text()) == result.best
    split = json.loads((tmp_path / "out" / "split.json").read_text())
    assert (len(split["held_out"]), split["seed"]) == (4, 0)


def test_a_score_has_the_interval_that_evaluate_gives():
    task = make_task("classify", DataOptions(Path("a.csv")), tiny_bert.tokenizer(), 16)
    task.set_labels({"a", "b"})
    found = ["a", "b", "b", "b", "a", "a", "b", "b"]
    scores = task.score("classify", [TextExample("x", None, name) for name in "abababab"], found)
    pairs = [Prediction(expected, answer) for expected, answer in zip("abababab", found, strict=True)]
    assert (scores["accuracy_low"], scores["accuracy_high"]) == score("classify", pairs).interval
    assert scores["accuracy_low"] < scores["accuracy"] == 0.625 < scores["accuracy_high"]
    assert "dev_accuracy 0.5000 (95 %: 0.2500 to 0.7500)" in _shown(
        {"dev_accuracy": 0.5, "dev_accuracy_low": 0.25, "dev_accuracy_high": 0.75}
    )


def test_a_split_keeps_each_class_in_its_share():
    classes = ["a"] * 60 + ["b"] * 30 + ["c"] * 10 + ["rare"]
    held = held_out_rows([None] * len(classes), 0.2, seed=3, classes=classes)
    assert Counter(classes[index] for index in held) == {"a": 12, "b": 6, "c": 2}
    assert held == held_out_rows([None] * len(classes), 0.2, seed=3, classes=classes)
    assert held != held_out_rows([None] * len(classes), 0.2, seed=4, classes=classes)
    for fraction in (0.01, 0.5, 0.9):  # whatever is asked for, training keeps every class
        held = set(held_out_rows([None] * len(classes), fraction, seed=0, classes=classes))
        assert {name for index, name in enumerate(classes) if index not in held} == set(classes)


def test_held_out_groups_stay_whole():
    groups = [str(number // 10) for number in range(100)]
    kept, held = divide(range(100), held_out_rows(groups, 0.2, seed=3))
    assert sorted(kept + held) == list(range(100))
    assert len(held) == 20
    assert not {number // 10 for number in kept} & {number // 10 for number in held}


def test_options_by_the_amount_of_data():
    assert options_for(270, 384) == {"batch_size": 16, "epochs": 10, "learning_rate": 2e-4}
    assert options_for(270, 768)["learning_rate"] == 5e-5
    assert options_for(1000, 384)["epochs"] == 5
    assert options_for(10_000, 384) == {"batch_size": 32, "epochs": 3, "learning_rate": 5e-5}


def test_warnings_about_data():
    assert few(500, {"a": 20, "b": 8}) == []
    assert "only 9 updates" in few(9, {})[0]
    assert "1 of 2 classes have fewer than 8 training examples (b)" in few(500, {"a": 9, "b": 7})[0]
    tokenizer = tiny_bert.tokenizer()
    short, long = TextExample("the cat"), TextExample("cat " * 7)
    lengths = text_lengths(tokenizer, [short] * 98 + [long] * 2)
    assert cut_texts([*lengths[:-1], 4], 8) == []
    assert "2 of 100 texts are longer than 8 tokens (up to 9)" in cut_texts(lengths, 8)[0]
    assert text_lengths(tokenizer, [TextExample("the cat", "the dog sat")]) == [8]
    assert text_lengths(tokenizer, [ChoiceExample("the cat", ("sat", "the good dog sat"))])[0] > 8


def test_freezing():
    model = BertForSequenceClassification(tiny_bert.config(), num_labels=2)
    freeze(model, ["embeddings", "layer_0"])
    names = {variable.path for variable in model.trainable_variables}
    assert not any("embeddings" in name or "layer_0" in name for name in names)
    assert any("layer_1" in name for name in names)
    with pytest.raises(
        ValueError, match="no 'layer_2' to freeze; there are embeddings, layer_0, layer_1, pooler"
    ):
        freeze(model, ["layer_2"])
    freeze(model, ["encoder"])
    assert len(model.trainable_variables) == 2


def test_frozen_parts_stay_as_they_are(tmp_path):
    model = BertForSequenceClassification(tiny_bert.config(), num_labels=2)
    freeze(model, ["embeddings", "layer_0"])
    before = {v.path: np.array(v) for v in model.weights}
    rows = [Feature([2, 60 + i % 2, 3], [0] * 3, i % 2) for i in range(16)]
    train(model, Batches(lambda: rows, BATCHING), OPTIONS, tmp_path, progress=False)
    for variable in model.weights:
        frozen = "embeddings" in variable.path or "layer_0" in variable.path
        assert np.array_equal(before[variable.path], np.array(variable)) == frozen, variable.path


def test_ctrl_c_says_how_to_go_on(tmp_path, monkeypatch):
    def stop(*arguments, **settings):
        raise KeyboardInterrupt

    monkeypatch.setattr(fine_tuning, "fine_tune", stop)
    from tensorflow.python.framework import config

    try:
        result = CliRunner().invoke(
            cli, ["train", "m", "--task", "classify", "--train", "a.csv", "--out", str(tmp_path / "o")]
        )
    finally:
        config.disable_op_determinism()
    assert result.exit_code == 130
    assert "the same command goes on from the last state" in result.stderr
    assert out_directory.LOCK not in result.stderr
