"""Task heads, encoders and trainings that start from Google's and TF-Hub's files, local and on a hub."""

from __future__ import annotations

import json
import shutil
import warnings
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from fakehub import FakeHub

from tfbert_npu import (
    BertEncoder,
    BertForMaskedLM,
    BertForPreTraining,
    BertForQuestionAnswering,
    BertForSequenceClassification,
    BertForTokenClassification,
    BertTokenizer,
    export_saved_model,
    pull_from_hub,
)
from tfbert_npu.errors import CheckpointError
from tfbert_npu.train.batches import BatchOptions
from tfbert_npu.train.data_options import DataOptions
from tfbert_npu.train.fine_tuning import fine_tune
from tfbert_npu.train.options import TrainOptions
from tfbert_npu.train.pre_training import pre_train
from tfbert_npu.train.raw_text import TextOptions


@pytest.fixture
def toy(shared: Path) -> Path:
    return shared / "data/weights/tf1_keras_bert_toy"


@pytest.fixture
def tfhub(shared: Path) -> Path:
    return shared / "reference/encoder"


def toy_inputs(golden, case: str = "0") -> dict[str, np.ndarray]:
    names = {
        "input_word_ids": "input_ids",
        "input_mask": "attention_mask",
        "input_type_ids": "token_type_ids",
    }
    return {name: golden[f"{case}.{theirs}"][None].astype(np.int32) for name, theirs in names.items()}


def new_weights(caught) -> list[str]:
    return [str(warning.message) for warning in caught if "new weights" in str(warning.message)]


def test_google_weights_fill_every_head_they_have(toy: Path, shared: Path) -> None:
    golden = dict(np.load(shared / "data/golden/tf1_keras_bert_toy_dev/kb.npz"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model = BertForPreTraining.from_pretrained(toy)
    logits = model(toy_inputs(golden))
    np.testing.assert_allclose(logits["mlm_logits"][0], golden["0.mlm"], atol=1e-5)
    np.testing.assert_allclose(logits["nsp_logits"][0], golden["0.nsp"], atol=1e-5)


def test_a_head_that_google_lacks_is_new_and_named_once(toy: Path, shared: Path, tmp_path: Path) -> None:
    golden = dict(np.load(shared / "data/golden/tf1_keras_bert_toy_dev/kb.npz"))
    with pytest.warns(UserWarning, match="new weights") as caught:
        model = BertForSequenceClassification.from_pretrained(toy, labels=["a", "b", "c"])
    (message,) = new_weights(caught)
    assert str(toy) in message
    assert "classifier.bias, classifier.weight;" in message
    pooled = model.encoder(toy_inputs(golden))["pooled_output"]
    np.testing.assert_allclose(pooled[0], golden["0.pooled"], atol=1e-5)
    model.save_pretrained(tmp_path)
    again = BertForSequenceClassification.from_pretrained(tmp_path)
    assert again.config == model.config
    assert again.config.hidden_act == "gelu_tanh"
    np.testing.assert_allclose(again(toy_inputs(golden)), model(toy_inputs(golden)), atol=1e-6)


def test_tfhub_weights_fill_a_head(tfhub: Path, shared: Path) -> None:
    io = dict(np.load(shared / "reference/encoder_io.npz"))
    names = ("input_word_ids", "input_mask", "input_type_ids", "masked_lm_positions")
    inputs = {name: io[f"a/in/{name}"] for name in names}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model = BertForMaskedLM.from_pretrained(tfhub)
    np.testing.assert_allclose(model(inputs), io["a/mlm/mlm_logits"], atol=1e-4)
    del inputs["masked_lm_positions"]
    encoder = BertEncoder.from_pretrained(tfhub)
    np.testing.assert_allclose(encoder(inputs)["pooled_output"], io["a/out/pooled_output"], atol=1e-5)
    with pytest.warns(UserWarning, match="new weights") as caught:
        tagger = BertForTokenClassification.from_pretrained(tfhub, num_labels=5)
    assert len(new_weights(caught)) == 1
    states = tagger.encoder(inputs)["sequence_output"]
    np.testing.assert_allclose(states, io["a/out/sequence_output"], atol=1e-5)


def test_our_own_saved_model_fills_a_head(tmp_path: Path) -> None:
    encoder = BertEncoder(
        {
            "vocab_size": 40,
            "hidden_size": 16,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "intermediate_size": 24,
        }
    )
    export_saved_model(encoder, tmp_path / "saved")
    with pytest.warns(UserWarning, match="qa_outputs"):
        model = BertForQuestionAnswering.from_pretrained(tmp_path / "saved")
    inputs = {name: np.ones((2, 5), np.int32) for name in ("input_word_ids", "input_mask", "input_type_ids")}
    np.testing.assert_allclose(
        model.encoder(inputs)["sequence_output"], encoder(inputs)["sequence_output"], atol=1e-5
    )


def test_a_folder_in_a_hub_repository_and_only_its_files(hub: FakeHub, toy: Path, tmp_path: Path) -> None:
    files = {f"uncased_toy/{path.name}": path.read_bytes() for path in toy.iterdir()}
    hub.add("google/archive").commit({**files, "README.md": b"hello", "uncased_toy/notes.h5": b"x" * 99})
    with pytest.warns(UserWarning, match="new weights"):
        model = BertForSequenceClassification.from_pretrained("google/archive", num_labels=4)
    assert not any(name.endswith((".md", ".h5", ".meta")) for name in hub.downloaded())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        again = BertForSequenceClassification.from_pretrained(
            "google/archive", num_labels=4, local_files_only=True
        )
    for one, other in zip(model.encoder.weights, again.encoder.weights, strict=True):
        np.testing.assert_array_equal(one, other)


def test_what_is_no_encoder_is_refused(shared: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="a TF-Hub preprocessor and no BERT encoder"):
        BertForMaskedLM.from_pretrained(shared / "reference/preprocess")
    tf.saved_model.save(tf.Module(), str(tmp_path / "module"))
    with pytest.raises(CheckpointError, match="some other kind and no BERT encoder"):
        BertForMaskedLM.from_pretrained(tmp_path / "module")
    npu = tmp_path / "npu"
    npu.mkdir()
    for name in ("config.json", "manifest.json", "model.rknn"):
        (npu / name).write_text("{}")
    with pytest.raises(CheckpointError, match="artifact for a Rockchip NPU and no weights"):
        BertEncoder.from_pretrained(npu)
    (tmp_path / "text").mkdir()
    (tmp_path / "text" / "a.txt").write_text("x")
    with pytest.raises(CheckpointError, match=r"text: there is no model of a known form"):
        BertForMaskedLM.from_pretrained(tmp_path / "text")


def test_a_saved_model_that_touches_files_is_refused(tmp_path: Path) -> None:
    class Module(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec([], tf.string)])
        def __call__(self, name):
            return tf.io.read_file(name)

    tf.saved_model.save(Module(), str(tmp_path / "module"))
    with pytest.raises(CheckpointError, match="touch files on this machine"):
        BertForSequenceClassification.from_pretrained(tmp_path / "module")


@pytest.mark.slow
@pytest.mark.parametrize("form", ["google", "tfhub"])
def test_training_starts_from_it(form: str, toy: Path, tfhub: Path, tmp_path: Path) -> None:
    model = Path(shutil.copytree(toy, tmp_path / "uncased_toy")) if form == "google" else tfhub
    rows = ["all work and no play,dull", "Jack makes all work,boy"] * 8
    (tmp_path / "a.csv").write_text("text,label\n" + "\n".join(rows) + "\n")
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)  # new weights are what is trained here
        fine_tune(
            "classify",
            model,
            DataOptions(tmp_path / "a.csv", dev_fraction=0.25),
            tmp_path / "out",
            batching=BatchOptions(batch_size=4, seq_length=16),
            options=TrainOptions(epochs=2, learning_rate=1e-3),
            progress=False,
        )
    trained = BertForSequenceClassification.from_pretrained(tmp_path / "out")
    assert trained.config.id2label == ("boy", "dull")
    start = BertEncoder.from_pretrained(model, mlm=False)
    moved = [
        np.abs(one - other).max() for one, other in zip(trained.encoder.weights, start.weights, strict=True)
    ]
    assert 0 < max(moved) < 0.02  # six steps of Adam at most 0.001 each
    assert json.loads((tmp_path / "out" / "tokenizer_config.json").read_text())["do_lower_case"] is True
    ours, theirs = (
        BertTokenizer.from_pretrained(tmp_path / "out"),
        pull_from_hub(model, component="preprocessor"),
    )
    text = "Jack makes ALL work dull"
    np.testing.assert_array_equal(
        ours([text], seq_length=16)["input_word_ids"], theirs(tf.constant([text]), 16)["input_word_ids"]
    )


@pytest.mark.slow
def test_mlm_training_goes_on_from_a_tfhub_module(tfhub: Path, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("all work and no play\nmakes jack a dull boy\n\n" * 12)
    result = pre_train(
        tfhub,
        TextOptions(tmp_path / "a.txt", tmp_path / "a.txt", mask_rate=0.3),
        tmp_path / "out",
        batching=BatchOptions(batch_size=4, seq_length=16),
        options=TrainOptions(epochs=3, learning_rate=5e-3),
        progress=False,
    )
    assert result.history[-1]["dev_perplexity"] < 0.7 * result.history[0]["dev_perplexity"]
    BertForMaskedLM.from_pretrained(tmp_path / "out")
