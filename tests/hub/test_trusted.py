"""Foreign SavedModels: refused without trust, a trainable Keras 3 layer with it."""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfbert_npu import pull_from_hub
from tfbert_npu.errors import CheckpointError
from tfbert_npu.hub.trusted import TrustedSavedModel, allow_trusted


class Foreign(tf.Module):
    """Something that is no BERT: x @ w + b, doubled in training, with a regularization loss."""

    def __init__(self) -> None:
        super().__init__()
        self.w = tf.Variable(np.arange(6, dtype=np.float32).reshape(3, 2) / 10, name="scope/w")
        self.b = tf.Variable([0.5, -0.5], trainable=False, name="b")
        self.regularization_losses = [
            tf.function(lambda: 0.01 * tf.reduce_sum(self.w**2), input_signature=[])
        ]

    @tf.function
    def __call__(self, x, training=False):
        y = tf.matmul(x, self.w) + self.b
        return {"y": 2 * y if training else y}


@pytest.fixture
def foreign(tmp_path: Path) -> Path:
    module = Foreign()
    for training in (True, False):
        module.__call__.get_concrete_function(tf.TensorSpec([None, 3], tf.float32), training=training)
    tf.saved_model.save(module, str(tmp_path / "foreign"))
    return tmp_path / "foreign"


X = np.array([[1, 2, 3], [4, 5, 6]], np.float32)


def test_without_trust_it_is_refused(foreign: Path) -> None:
    with pytest.raises(CheckpointError, match=r"cannot be rebuilt; if you trust .*trust_saved_model=True"):
        pull_from_hub(foreign)


def test_weights_training_and_losses(foreign: Path) -> None:
    layer = pull_from_hub(foreign, trust_saved_model=True, trainable=True)
    assert isinstance(layer, TrustedSavedModel)
    assert [tuple(v.shape) for v in layer.trainable_variables] == [(3, 2)]
    assert [tuple(v.shape) for v in layer.non_trainable_variables] == [(2,)]
    expected = X @ layer.trainable_variables[0].numpy() + [0.5, -0.5]
    np.testing.assert_allclose(layer(X)["y"], expected, rtol=1e-6)
    np.testing.assert_allclose(layer(X, training=True)["y"], 2 * expected, rtol=1e-6)
    np.testing.assert_allclose(layer.losses, [0.0055], rtol=1e-5)
    layer.trainable_variables[0].assign(np.zeros((3, 2)))
    np.testing.assert_allclose(layer(X)["y"], np.tile([0.5, -0.5], (2, 1)))
    assert not pull_from_hub(foreign, trust_saved_model=True).trainable_variables


def test_fit_and_keras_file(foreign: Path, tmp_path: Path) -> None:
    layer = pull_from_hub(foreign, trust_saved_model=True, trainable=True)
    inputs = keras.Input((3,))
    model = keras.Model(inputs, keras.layers.Dense(1)(layer(inputs)["y"]))
    model.compile(keras.optimizers.SGD(0.001), "mse")
    before = layer.trainable_variables[0].numpy()
    losses = model.fit(X, np.array([[1.0], [2.0]]), epochs=3, verbose=0).history["loss"]
    assert losses[-1] < losses[0]
    assert not np.allclose(before, layer.trainable_variables[0])
    model.save(tmp_path / "model.keras")
    code = (
        "import sys, numpy as np, keras, tfbert_npu\n"
        "from tfbert_npu.hub.trusted import allow_trusted\n"
        "with allow_trusted(sys.argv[3]):\n"
        "    model = keras.models.load_model(sys.argv[1])\n"
        "np.save(sys.argv[2], model(np.array([[1, 2, 3], [4, 5, 6]], np.float32)))"
    )
    files = [str(tmp_path / "model.keras"), str(tmp_path / "result.npy")]
    subprocess.run([sys.executable, "-c", code, *files, str(foreign)], check=True, capture_output=True)
    np.testing.assert_allclose(np.load(files[1]), model(X), rtol=1e-6)


def test_a_keras_file_finds_only_the_same_graph(foreign: Path, tmp_path: Path) -> None:
    layer = pull_from_hub(foreign, trust_saved_model=True)
    config = layer.get_config()
    other = Foreign()
    other.__call__.get_concrete_function(tf.TensorSpec([None, 3], tf.float32))
    shutil.rmtree(foreign)
    tf.saved_model.save(other, str(foreign))
    with (
        allow_trusted(foreign),
        pytest.raises(CheckpointError, match="another SavedModel than this layer was made from"),
    ):
        TrustedSavedModel.from_config(config)


HOSTILE = """
import sys, keras, tfbert_npu
from tfbert_npu.errors import CheckpointError
try:
    keras.models.load_model(sys.argv[1])(keras.ops.ones((1, 3)))
except CheckpointError as error:
    print(error)
"""


@pytest.mark.parametrize("allow", [[], ["WriteFile"]])
def test_a_keras_file_grants_itself_no_trust(tmp_path: Path, allow: list[str]) -> None:
    """A file that names a SavedModel which writes when it is called, and the operator that it needs."""
    written = tmp_path / "written"

    class Evil(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec([None, 3], tf.float32)])
        def __call__(self, x: tf.Tensor) -> tf.Tensor:
            tf.io.write_file(str(written), "x")
            return x

    tf.saved_model.save(Evil(), str(tmp_path / "evil"))
    layer = TrustedSavedModel(tmp_path / "evil", allow_ops=["WriteFile"])
    inputs = keras.Input((3,))
    keras.Model(inputs, layer(inputs)).save(tmp_path / "model.keras")
    written.unlink(missing_ok=True)
    if allow:
        with zipfile.ZipFile(tmp_path / "model.keras") as archive:
            files = {name: archive.read(name) for name in archive.namelist()}
        config = files["config.json"].replace(b'"sha256"', b'"allow_ops": ["WriteFile"], "sha256"')
        with zipfile.ZipFile(tmp_path / "model.keras", "w") as archive:
            for name, content in {**files, "config.json": config}.items():
                archive.writestr(name, content)
    command = [sys.executable, "-c", HOSTILE, str(tmp_path / "model.keras")]
    answer = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert "if you trust it, load the file inside of" in answer
    assert not written.exists()


def test_trusted_with_the_original_graph_of_an_encoder(shared: Path) -> None:
    reference = shared / "reference" / "encoder"
    io = np.load(shared / "reference" / "encoder_io.npz")
    layer = TrustedSavedModel(reference)
    inputs = {n: tf.constant(io[f"b/in/{n}"]) for n in ("input_word_ids", "input_mask", "input_type_ids")}
    np.testing.assert_allclose(layer(inputs)["sequence_output"], io["b/out/sequence_output"], atol=1e-5)
    assert len(layer.trainable_variables) == 39


def test_what_has_no_call_is_refused(tmp_path: Path) -> None:
    tf.saved_model.save(tf.train.Checkpoint(v=tf.Variable(1.0)), str(tmp_path / "model"))
    with pytest.raises(CheckpointError, match="cannot be called"):
        pull_from_hub(tmp_path / "model", trust_saved_model=True)
