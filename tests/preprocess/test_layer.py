"""The layer wherever TensorFlow runs it: eager, compiled, in pipelines, in saved files."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfbert_npu.preprocess import BertPreprocessor, BertTokenizer

TEXTS = ["Wanted, running!", "", "  \t", "UNwantéd \x00博 ΑΣ", "a b " * 50]


@pytest.fixture
def layer(small_model: Path) -> BertPreprocessor:
    return BertPreprocessor.from_pretrained(small_model, 16)


@pytest.fixture
def expected(small_model: Path) -> dict[str, np.ndarray]:
    return BertTokenizer.from_pretrained(small_model)(TEXTS, seq_length=16)


def assert_equal(got: dict, want: dict) -> None:
    assert set(got) == set(want) == {"input_word_ids", "input_mask", "input_type_ids"}
    for name in want:
        assert np.asarray(got[name]).dtype == np.int32
        np.testing.assert_array_equal(np.asarray(got[name]), want[name])


def test_eager_on_lists_arrays_and_tensors(layer, expected):
    for texts in (TEXTS, tuple(TEXTS), np.array(TEXTS, object), tf.constant(TEXTS), [tf.constant(TEXTS)]):
        assert_equal(layer(texts), expected)
    assert expected["input_word_ids"].any(1).all()


def test_in_a_function_and_a_pipeline(layer, expected):
    assert_equal(tf.function(layer)(tf.constant(TEXTS)), expected)
    dataset = tf.data.Dataset.from_tensor_slices(TEXTS).batch(5).map(layer)
    assert {name: spec.shape.as_list() for name, spec in dataset.element_spec.items()} == {
        name: [None, 16] for name in expected
    }
    assert_equal(next(iter(dataset)), expected)


def test_pairs_and_another_length(layer, small_model):
    other = TEXTS[::-1]
    want = BertTokenizer.from_pretrained(small_model)(TEXTS, other, seq_length=9)
    assert_equal(layer([TEXTS, other], seq_length=9), want)
    assert want["input_type_ids"].any()
    assert_equal(
        tf.function(lambda a, b: layer([a, b], seq_length=9))(tf.constant(TEXTS), tf.constant(other)), want
    )


def test_an_empty_batch_gives_empty_outputs(layer, small_model):
    for texts in ([], np.array([], object), tf.constant([], tf.string)):
        got = layer(texts)
        assert {name: value.shape.as_list() for name, value in got.items()} == {name: [0, 16] for name in got}
    assert BertTokenizer.from_pretrained(small_model)([])["input_mask"].shape == (0, 128)


def test_a_functional_model_trains_and_predicts(layer, expected):
    text = keras.Input(shape=(), dtype="string")
    inputs = layer(text)
    assert inputs["input_mask"].shape == (None, 16)
    ids = keras.layers.Embedding(len(layer.vocabulary), 4)(inputs["input_word_ids"])
    score = keras.layers.Dense(1)(keras.layers.GlobalAveragePooling1D()(ids))
    model = keras.Model(text, {"score": score, "ids": inputs["input_word_ids"]})
    np.testing.assert_array_equal(
        model.predict(tf.constant(TEXTS), verbose=0)["ids"], expected["input_word_ids"]
    )

    trained = keras.Model(text, score)
    trained.compile("sgd", "mse")
    before = trained.layers[2].get_weights()[0].copy()
    trained.fit(tf.data.Dataset.from_tensor_slices((TEXTS, np.ones(5))).batch(5), verbose=0)
    assert np.abs(trained.layers[2].get_weights()[0] - before).max() > 0
    assert layer.trainable_variables == []


def run_python(code: str, *arguments: object) -> None:
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)], capture_output=True, text=True, env=environment
    )
    assert done.returncode == 0, done.stderr


def test_a_keras_file_holds_everything(layer, expected, small_model, tmp_path):
    pair = [keras.Input(shape=(), dtype="string"), keras.Input(shape=(), dtype="string")]
    text = keras.Input(shape=(), dtype="string")
    keras.Model([text, *pair], [layer(text), layer(pair, seq_length=8)]).save(tmp_path / "model.keras")
    want = {f"0{name}": value for name, value in expected.items()}
    pairs = BertTokenizer.from_pretrained(small_model)(TEXTS, TEXTS, 8)
    np.savez(tmp_path / "want.npz", texts=np.array(TEXTS), **want, **{f"1{n}": v for n, v in pairs.items()})
    (small_model / "vocab.txt").unlink()
    run_python(
        """
import sys, numpy as np, keras, tensorflow as tf
import tfbert_npu.preprocess.layer
want = np.load(sys.argv[2])
model = keras.saving.load_model(sys.argv[1])
texts = tf.constant([str(t) for t in want["texts"]])
for index, outputs in enumerate(model.predict([texts] * 3, verbose=0)):
    for name, value in outputs.items():
        np.testing.assert_array_equal(value, want[f"{index}{name}"])
""",
        tmp_path / "model.keras",
        tmp_path / "want.npz",
    )


def test_a_saved_model_needs_tensorflow_text_only(layer, expected, tmp_path):
    module = tf.Module()
    module.preprocessor = layer
    module.run = tf.function(lambda texts: layer(texts), input_signature=[tf.TensorSpec([None], tf.string)])
    tf.saved_model.save(module, str(tmp_path / "saved"))
    np.savez(tmp_path / "want.npz", texts=np.array(TEXTS), **expected)
    run_python(
        """
import sys, numpy as np, tensorflow as tf, tensorflow_text
want = np.load(sys.argv[2])
got = tf.saved_model.load(sys.argv[1]).run(tf.constant([str(t) for t in want["texts"]]))
for name, value in got.items():
    np.testing.assert_array_equal(value, want[name])
assert not any(name.startswith("tfbert_npu") for name in sys.modules)
""",
        tmp_path / "saved",
        tmp_path / "want.npz",
    )


def test_from_config_gives_an_equal_layer(layer, expected):
    again = BertPreprocessor.from_config(layer.get_config())
    assert again.get_config() == layer.get_config()
    assert_equal(again(TEXTS), expected)


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        (None, "NoneType"),
        (3, "int"),
        ("one text", "wrap it in a list"),
        (["a", None], "text 1 .* NoneType"),
        (["a", 3], "text 1 .* int"),
        ([1, 2], "int"),
        (np.zeros(3), "text 0 .* float"),
        (tf.zeros([3]), "dtype float32"),
        (tf.constant([["a"]]), "rank 2"),
        (tf.constant("a"), "rank 0"),
        ([["a"], ["b"], ["c"]], "one or two segments, not 3"),
        ([["a", ["b"]], ["c"]], "text 1 .* list"),
        ([["a"], "b"], "wrap it in a list"),
        ([["a", "b"], ["c"]], "2 and 1"),
        ({"text": ["a"]}, "dict"),
    ],
)
def test_what_is_no_text_is_refused(layer, inputs, message: str):
    with pytest.raises(ValueError, match=message):
        layer(inputs)


@pytest.mark.parametrize("seq_length", [0, 1, -3, 2.5, "8", True])
def test_a_length_without_room_is_refused(layer, seq_length):
    with pytest.raises(ValueError, match="seq_length"):
        layer(TEXTS, seq_length=seq_length)
    with pytest.raises(ValueError, match="at least 3"):
        layer([TEXTS, TEXTS], seq_length=2)
    assert layer(TEXTS, seq_length=2)["input_word_ids"].numpy().tolist() == [[2, 3]] * 5
