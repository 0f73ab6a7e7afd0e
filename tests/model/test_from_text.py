"""Strings to predictions in one functional model: trained on real data, saved, reloaded elsewhere."""

from __future__ import annotations

import csv
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfbert_npu import BertEncoder, BertPreprocessor

RELOAD = """
import sys, keras, numpy as np, tensorflow as tf, tfbert_npu
model = keras.models.load_model(sys.argv[1])
texts = open(sys.argv[2], encoding="utf-8").read().split("\\n")
np.save(sys.argv[3], model.predict(tf.constant(texts), verbose=0))
"""


def banking77(shared: Path, rows: int) -> tuple[list[str], np.ndarray]:
    with (shared / "data" / "cls" / "banking77" / "train.csv").open(encoding="utf-8", newline="") as file:
        data = list(csv.DictReader(file))
    chosen = [data[row] for row in np.random.default_rng(0).permutation(len(data))[:rows]]
    names = sorted({row["category"] for row in data})
    return [row["text"] for row in chosen], np.array([names.index(row["category"]) for row in chosen])


@pytest.mark.slow
@pytest.mark.parametrize("trainable", [True, False])
def test_banking77_from_strings(shared: Path, minilm: Path, tmp_path: Path, trainable: bool) -> None:
    """The encoder's variables move when they may, and only then; the loss falls either way."""
    texts, labels = banking77(shared, 800)
    keras.utils.set_random_seed(0)
    preprocessor = BertPreprocessor.from_pretrained(minilm, seq_length=24)
    encoder = BertEncoder.from_pretrained(minilm, trainable=trainable)
    string = keras.Input((), dtype="string")
    logits = keras.layers.Dense(77)(encoder(preprocessor(string))["pooled_output"])
    model = keras.Model(string, logits)
    model.compile(
        keras.optimizers.AdamW(3e-4 if trainable else 1e-2),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )
    before = [weight.numpy() for weight in encoder.weights]
    losses = model.fit(tf.constant(texts), labels, batch_size=32, epochs=2, verbose=0).history["loss"]
    assert losses[1] < 0.9 * losses[0]
    moved = [not np.array_equal(old, new) for old, new in zip(before, encoder.weights, strict=True)]
    assert all(moved) if trainable else not any(moved)

    expected = model.predict(tf.constant(texts[:20]), verbose=0)
    model.save(tmp_path / "model.keras")
    (tmp_path / "texts.txt").write_text("\n".join(texts[:20]), encoding="utf-8")
    files = [tmp_path / name for name in ("model.keras", "texts.txt", "out.npy")]
    result = subprocess.run(
        [sys.executable, "-c", RELOAD, *files], capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    np.testing.assert_allclose(np.load(tmp_path / "out.npy"), expected, rtol=0, atol=1e-5)


def test_the_modes_agree(minilm: Path) -> None:
    """Eager, tf.function, XLA for the encoder, Dataset.map for the preprocessor: the same numbers."""
    preprocessor = BertPreprocessor.from_pretrained(minilm, seq_length=16)
    encoder = BertEncoder.from_pretrained(minilm)
    texts = tf.constant(["A first text.", "", "   ", "One that is too long: " + "very " * 40])
    eager = encoder(preprocessor(texts))["pooled_output"].numpy()
    assert np.isfinite(eager).all()
    graph = tf.function(lambda strings: encoder(preprocessor(strings)))(texts)["pooled_output"]
    compiled = tf.function(encoder.__call__, jit_compile=True)(preprocessor(texts))["pooled_output"]
    (mapped,) = tf.data.Dataset.from_tensor_slices(texts).batch(4).map(preprocessor)
    string = keras.Input((), dtype="string")
    model = keras.Model(string, encoder(preprocessor(string))["pooled_output"])
    for other in (
        graph,
        compiled,
        encoder(mapped)["pooled_output"],
        model(texts),
        model.predict(texts, verbose=0),
    ):
        np.testing.assert_allclose(other, eager, rtol=0, atol=1e-5)
    pair = encoder(preprocessor([texts, texts]))["sequence_output"]
    assert pair.shape == (4, 16, 384)


def test_no_texts(minilm: Path) -> None:
    preprocessor = BertPreprocessor.from_pretrained(minilm, seq_length=16)
    outputs = BertEncoder.from_pretrained(minilm)(preprocessor(tf.constant([], tf.string)))
    assert outputs["sequence_output"].shape == (0, 16, 384)
