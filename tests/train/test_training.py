"""The loop: learning, resuming after kill -9, diverging, early stopping, LoRA."""

import json
import os
import signal
import subprocess
import sys
import textwrap

import keras
import numpy as np
import pytest
import tiny_bert
from safetensors.numpy import load_file

from tfbert_npu import BertForSequenceClassification, BertForTokenClassification
from tfbert_npu.errors import CheckpointError
from tfbert_npu.train.batches import Batches, BatchOptions
from tfbert_npu.train.callbacks import DivergedError, KeepBest, Position
from tfbert_npu.train.data_options import DataOptions
from tfbert_npu.train.features import IGNORED, Feature
from tfbert_npu.train.fine_tuning import _rank, fine_tune
from tfbert_npu.train.loop import dataset, train
from tfbert_npu.train.lora import add_lora, merge_lora
from tfbert_npu.train.options import TrainOptions

OPTIONS = TrainOptions(epochs=3, learning_rate=3e-3)


def rows(count=40, labels=2):
    """Rows whose first word tells the label."""
    rng = np.random.default_rng(0)
    for _ in range(count):
        label = int(rng.integers(labels))
        ids = [2, 60 + label, *rng.integers(5, 50, int(rng.integers(1, 6))).tolist(), 3]
        yield Feature(ids, [0] * len(ids), label)


def batches(**options):
    return Batches(rows, BatchOptions(batch_size=8, seq_length=16, **options))


def head(seed=0, **changes):
    keras.utils.set_random_seed(seed)
    return BertForSequenceClassification(tiny_bert.config(**changes), num_labels=2)


def test_it_learns_and_leaves_a_model(tmp_path):
    history = train(head(), batches(), TrainOptions(epochs=8, learning_rate=1e-2), tmp_path, progress=False)
    assert [logs["epoch"] for logs in history] == list(range(1, 9))
    assert history[-1]["loss"] < 0.3 < history[0]["loss"]
    assert json.loads((tmp_path / "history.json").read_text()) == history
    assert not (tmp_path / "training_state.safetensors").exists()
    again = BertForSequenceClassification.from_pretrained(tmp_path)
    inputs, labels, _ = next(batches().epoch(0))
    assert (again.predict(inputs, verbose=0).argmax(-1) == labels).mean() > 0.9


SCRIPT = textwrap.dedent(
    """
    import sys, pathlib, time
    sys.path.insert(0, {tests!r})
    import keras, tensorflow as tf
    tf.config.experimental.enable_op_determinism()
    import test_training as t
    class Slow(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            print("step", flush=True)
            time.sleep(float(sys.argv[2]))
    import tfbert_npu.train.loop as loop
    plain = loop.Advance
    loop.Advance = lambda position: keras.callbacks.CallbackList([plain(position), Slow()])
    t.run(pathlib.Path(sys.argv[1]))
    """
)


def run(out):
    options = TrainOptions(epochs=3, learning_rate=3e-3, save_every=2, warmup=0.3)
    model = head()
    train(model, batches(), options, out, monitor="x", evaluate=lambda: {"x": 1.0}, progress=False)
    model.save_pretrained(out / "last")


def start(out, pause):
    code = SCRIPT.format(tests=os.path.dirname(__file__))
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([os.path.dirname(os.path.dirname(__file__))])}
    return subprocess.Popen(
        [sys.executable, "-c", code, str(out), str(pause)],
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
    )


@pytest.mark.slow
def test_killed_in_mid_epoch_it_ends_with_the_same_weights(tmp_path):
    whole = start(tmp_path / "whole", 0)
    whole.communicate(timeout=300)
    assert whole.returncode == 0
    # 5 batches an epoch; the state is saved after the second and the fourth. Killed in the second epoch.
    killed = start(tmp_path / "killed", 0.2)
    for _ in range(5 + 3):
        assert killed.stdout.readline() == "step\n"
    killed.send_signal(signal.SIGKILL)
    killed.communicate(timeout=60)
    state = tmp_path / "killed" / "training_state.safetensors"
    assert state.is_file()
    resumed = start(tmp_path / "killed", 0)
    output, _ = resumed.communicate(timeout=300)
    assert resumed.returncode == 0
    assert 0 < output.count("step") < 15
    expected = load_file(tmp_path / "whole" / "last" / "model.safetensors")
    found = load_file(tmp_path / "killed" / "last" / "model.safetensors")
    assert expected.keys() == found.keys()
    for name, tensor in expected.items():
        np.testing.assert_array_equal(found[name], tensor, err_msg=name)
    assert [logs["epoch"] for logs in json.loads((tmp_path / "killed" / "history.json").read_text())] == [
        1,
        2,
        3,
    ]


class InterruptedRunError(Exception):
    pass


@pytest.mark.parametrize("at", [2, 5, 9])
def test_an_interrupted_training_goes_on_exactly(tmp_path, at, monkeypatch):
    import tfbert_npu.train.loop as loop

    keras.utils.set_random_seed(0)
    options = TrainOptions(epochs=2, learning_rate=3e-3, save_every=1)
    whole = head()
    train(whole, batches(), options, tmp_path / "whole", progress=False)

    class Interrupt(loop.SaveState):
        seen = 0

        def on_train_batch_end(self, batch, logs=None):
            super().on_train_batch_end(batch, logs)
            Interrupt.seen += 1
            if Interrupt.seen == at:
                raise InterruptedRunError

    plain = loop.SaveState
    monkeypatch.setattr(loop, "SaveState", Interrupt)
    with pytest.raises(InterruptedRunError):
        train(head(), batches(), options, tmp_path / "part", progress=False)
    monkeypatch.setattr(loop, "SaveState", plain)
    resumed = head(seed=5)
    history = train(resumed, batches(), options, tmp_path / "part", progress=False)
    assert len(history) == 2
    for a, b in zip(whole.trainable_variables, resumed.trainable_variables, strict=True):
        np.testing.assert_allclose(np.asarray(a), np.asarray(b), atol=1e-6, err_msg=a.path)


def test_a_state_of_another_model_is_refused(tmp_path):
    from tfbert_npu.train.loop import origin_of
    from tfbert_npu.train.state import FILE, save_state

    model = head()
    model.build()
    model.compile("adam")
    save_state(tmp_path / FILE, model, {}, origin_of(model, batches(), OPTIONS))
    with pytest.raises(CheckpointError, match="another model or optimizer"):
        train(head(num_hidden_layers=1), batches(), OPTIONS, tmp_path, progress=False)
    (tmp_path / FILE).write_bytes(b"half")
    with pytest.raises(CheckpointError, match="damaged"):
        train(head(), batches(), OPTIONS, tmp_path, progress=False)


def test_nan_stops_with_the_step_and_the_batch(tmp_path):
    def poisoned():
        for index, row in enumerate(rows()):
            yield Feature(row.ids, row.types, float("nan") if index == 20 else 1.0)

    model = BertForSequenceClassification(tiny_bert.config(), num_labels=1)
    data = Batches(poisoned, BatchOptions(batch_size=8, seq_length=16, shuffle=0, group=1))
    with pytest.raises(DivergedError, match="step 3 of epoch 1"):
        train(model, data, OPTIONS, tmp_path, progress=False)
    saved = np.load(tmp_path / "diverged_batch.npz")
    assert np.isnan(saved["labels"]).tolist() == [False] * 4 + [True] + [False] * 3
    assert saved["input_word_ids"].shape[0] == 8


@pytest.mark.parametrize("label", [2, -1, 0.5, [IGNORED, 7]])
def test_labels_outside_the_range(tmp_path, label):
    data = Batches(lambda: [*rows(3), Feature([2, 3], [0, 0], label)], BatchOptions(seq_length=16))
    with pytest.raises(
        ValueError, match=r"row 3 of the data has the label .*, but the model's labels are 0 to 1"
    ):
        train(head(), data, OPTIONS, tmp_path / "out", progress=False)
    assert not (tmp_path / "out").exists()


def test_a_batch_without_labels_adds_nothing():
    model = BertForTokenClassification(tiny_bert.config(), num_labels=3)
    model.compile("sgd")
    inputs, _, _ = next(batches().epoch(0))
    nothing = np.full(inputs["input_word_ids"].shape, IGNORED)
    assert model.test_on_batch(inputs, nothing) == 0.0


def test_early_stopping_keeps_the_best(tmp_path):
    results = iter([0.5, 0.7, 0.6, 0.65, 0.9])
    saved = []
    history = train(
        head(),
        batches(),
        TrainOptions(epochs=5, patience=2),
        tmp_path,
        evaluate=lambda: {"f1": next(results)},
        save=lambda: saved.append(1),
        monitor="f1",
        progress=False,
    )
    assert [logs["dev_f1"] for logs in history] == [0.5, 0.7, 0.6, 0.65]
    assert len(saved) == 2


@pytest.mark.parametrize(("higher", "results", "saves"), [(True, [1, 3, 2], 2), (False, [3, 1, 2], 2)])
def test_which_is_better(higher, results, saves):
    saved = []
    results = iter(results)
    keep = KeepBest(Position(), lambda: {"x": next(results)}, lambda: saved.append(1), "x", higher)
    for epoch in range(3):
        keep.on_epoch_end(epoch, {})
    assert len(saved) == saves


def test_between_equal_results_the_lower_loss_decides():
    """A few held-out rows are soon all right; the epochs after it are not all the same."""
    results = iter([(0.5, 0.9), (1.0, 0.6), (1.0, 0.2), (1.0, 0.3), (0.9, 0.1)])
    saved, position = [], Position()

    def evaluate():
        accuracy, loss = next(results)
        return {"accuracy": accuracy, "loss": loss}

    keep = KeepBest(position, evaluate, lambda: saved.append(epoch), "accuracy")
    history = []
    for epoch in range(5):
        logs = {}
        keep.on_epoch_end(epoch, logs)
        history.append(logs)
    assert saved == [0, 1, 2]
    assert (position.best, position.best_loss, position.waited) == (1.0, 0.2, 2)
    assert max(history, key=lambda logs: _rank(logs, "dev_accuracy")) is history[2]


def test_class_weights_reach_the_loss():
    model = head(hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    model.compile("sgd")
    plain = Batches(rows, BatchOptions(batch_size=40, seq_length=16))
    weighted = Batches(rows, BatchOptions(batch_size=40, seq_length=16), class_weights=[1.0, 3.0])
    inputs, labels, _ = next(weighted.epoch(0))
    data = next(iter(dataset(weighted)))
    losses = keras.losses.sparse_categorical_crossentropy(labels, model.predict(inputs), from_logits=True)
    expected = (np.asarray(losses) * np.where(labels == 1, 3.0, 1.0)).mean()
    assert model.test_on_batch(*data) == pytest.approx(expected, rel=1e-5)
    assert model.test_on_batch(*next(plain.epoch(0))[:2]) == pytest.approx(np.mean(losses), rel=1e-5)


def test_lora_trains_little_and_merges(tmp_path):
    model = head(hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    inputs, _, _ = next(batches().epoch(0))
    before = model.predict(inputs, verbose=0)
    frozen = {v.path: keras.ops.convert_to_numpy(v).copy() for v in model.encoder.trainable_variables}
    add_lora(model, 4)
    np.testing.assert_allclose(model.predict(inputs, verbose=0), before, atol=1e-6)
    names = {v.path.rsplit("/", 1)[-1] for v in model.trainable_variables}
    assert names == {"lora_kernel_a", "lora_kernel_b", "kernel", "bias"}
    # 2 layers x query and value x A and B, and the classifier
    assert len(model.trainable_variables) == 2 * 2 * 2 + 2
    train(model, batches(), OPTIONS, tmp_path, progress=False, save=lambda: None)
    for variable in model.encoder.variables:
        if variable.path in frozen:
            np.testing.assert_array_equal(
                np.asarray(variable.value), frozen[variable.path], err_msg=variable.path
            )
    merged = merge_lora(model)
    after = model.predict(inputs, verbose=0)
    assert np.abs(after - before).max() > 1e-3
    np.testing.assert_allclose(merged.predict(inputs, verbose=0), after, atol=1e-5)
    merged.save_pretrained(tmp_path)
    again = BertForSequenceClassification.from_pretrained(tmp_path)
    np.testing.assert_allclose(again.predict(inputs, verbose=0), after, atol=1e-5)
    with pytest.raises(ValueError, match="rank must be from 1 to 31, got 32"):
        add_lora(head(), 32)


@pytest.fixture
def checkpoint(tmp_path):
    return tiny_bert.write_checkpoint(tmp_path / "model")


def test_from_files_to_a_directory(tmp_path, checkpoint):
    lines = ["the cat sat,good", "a dog ran,bad", "the cat,good", "dog,bad"] * 20
    (tmp_path / "a.csv").write_text("text,label\n" + "\n".join(lines) + "\n")
    result = fine_tune(
        "classify",
        checkpoint,
        DataOptions(tmp_path / "a.csv", dev_fraction=0.25),
        tmp_path / "out",
        batching=BatchOptions(batch_size=4, seq_length=16),
        options=TrainOptions(epochs=8, learning_rate=1e-2),
        progress=False,
    )
    assert result.best["dev_accuracy"] == 1.0
    files = {path.name for path in (tmp_path / "out").iterdir()}
    assert files == {
        "config.json", "model.safetensors", "vocab.txt", "tokenizer_config.json", "history.json", "results.json",
        "split.json", "losses.csv", "learning_curves.png",
    }  # fmt: skip
    from tfbert_npu import BertTokenizer
    from tfbert_npu.tasks import classify

    model = BertForSequenceClassification.from_pretrained(tmp_path / "out")
    assert model.config.id2label == ("bad", "good")
    tokenizer = BertTokenizer.from_pretrained(tmp_path / "out")
    best = [scored[0].label for scored in classify(model, tokenizer, ["the cat sat", "a dog ran"])]
    assert best == ["good", "bad"]


@pytest.mark.parametrize(
    ("labels", "message"),
    [(("good",), "label 'bad' of 'a dog ran' is none of the 1 labels"), (None, None)],
)
def test_a_label_file_of_another_size(tmp_path, checkpoint, labels, message):
    (tmp_path / "a.csv").write_text("text,label\nthe cat,good\na dog ran,bad\n")
    data = DataOptions(tmp_path / "a.csv", dev_fraction=0, labels=labels)
    options, batching = TrainOptions(epochs=1), BatchOptions(seq_length=16)
    if message is None:
        assert fine_tune(
            "classify", checkpoint, data, tmp_path / "o", batching=batching, options=options, progress=False
        ).history
        return
    with pytest.raises(ValueError, match=message):
        fine_tune(
            "classify", checkpoint, data, tmp_path / "o", batching=batching, options=options, progress=False
        )
    assert not (tmp_path / "o").exists()


def test_empty_files(tmp_path, checkpoint):
    (tmp_path / "a.csv").write_text("text,label\n")
    with pytest.raises(ValueError, match="data set is empty"):
        fine_tune("classify", checkpoint, DataOptions(tmp_path / "a.csv", dev_fraction=0), tmp_path / "o")
    (tmp_path / "b.csv").write_text("text,label\nx,y\n")
    with pytest.raises(ValueError, match=r"a\.csv is empty"):
        fine_tune("classify", checkpoint, DataOptions(tmp_path / "b.csv", tmp_path / "a.csv"), tmp_path / "o")
    with pytest.raises(ValueError, match="cannot be split"):
        fine_tune("classify", checkpoint, DataOptions(tmp_path / "b.csv"), tmp_path / "o")


def test_a_checkpoint_of_another_architecture(tmp_path, checkpoint):
    config = json.loads((checkpoint / "config.json").read_text())
    (checkpoint / "config.json").write_text(json.dumps({**config, "model_type": "roberta"}))
    (tmp_path / "a.csv").write_text("text,label\nx,a\ny,b\n")
    with pytest.raises(CheckpointError, match="model_type 'roberta' is not supported"):
        fine_tune("classify", checkpoint, DataOptions(tmp_path / "a.csv"), tmp_path / "o")
