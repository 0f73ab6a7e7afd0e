"""Our SavedModels in the hands of others: tf.saved_model.load and hub.KerasLayer in processes without us."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from tfbert_npu import BertConfig, BertEncoder, export_saved_model, pull_from_hub

NAMES = ("input_word_ids", "input_mask", "input_type_ids")
CONFIG = BertConfig(
    vocab_size=60,
    hidden_size=16,
    num_hidden_layers=2,
    num_attention_heads=4,
    intermediate_size=24,
    max_position_embeddings=20,
    hidden_dropout_prob=0.0,
    attention_probs_dropout_prob=0.0,
    initializer_range=0.2,
)
# Refuses this package, so that nothing of it can be what makes the SavedModel work.
WITHOUT_US = """
import sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "tfbert_npu":
            raise ImportError("this process must not import tfbert_npu")
sys.meta_path.insert(0, Refuse())
"""


def batch(seed: int = 0, rows: int = 3, length: int = 9) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    mask = np.ones((rows, length), np.int32)
    mask[1, 5:] = 0
    return {
        "input_word_ids": rng.integers(0, CONFIG.vocab_size, (rows, length)).astype(np.int32),
        "input_mask": mask,
        "input_type_ids": rng.integers(0, 2, (rows, length)).astype(np.int32),
    }


def run_alone(code: str, tmp_path: Path, **environment: str) -> dict[str, np.ndarray]:
    """Run code that fills a dict `out` of arrays in a process of its own."""
    result = tmp_path / "result.npz"
    script = f"{WITHOUT_US}\nimport numpy as np\nout = {{}}\n{code}\nnp.savez({str(result)!r}, **out)\n"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, env={**os.environ, **environment}
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return dict(np.load(result))


@pytest.fixture(scope="module")
def encoder() -> BertEncoder:
    encoder = BertEncoder(CONFIG, mlm=True)
    encoder.build()
    rng = np.random.default_rng(7)
    for variable in encoder.trainable_variables:
        variable.assign(variable.numpy() + rng.normal(scale=0.05, size=variable.shape))
    return encoder


@pytest.fixture(scope="module")
def exported(encoder: BertEncoder, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("exported")
    (folder / "vocab.txt").write_text("".join(f"w{index}\n" for index in range(CONFIG.vocab_size)))
    export_saved_model(encoder, folder / "model", vocab_file=folder / "vocab.txt", do_lower_case=True)
    return folder / "model"


def test_it_works_in_a_process_without_us(encoder: BertEncoder, exported: Path, tmp_path: Path) -> None:
    positions = np.array([[0, 3], [1, 4], [8, 8]], np.int32)
    np.savez(tmp_path / "inputs.npz", positions=positions, **batch())
    out = run_alone(
        f"""
import tensorflow as tf
z = dict(np.load({str(tmp_path / "inputs.npz")!r}))
positions = tf.constant(z.pop("positions"))
inputs = {{k: tf.constant(v) for k, v in z.items()}}
model = tf.saved_model.load({str(exported)!r})
for training in (False, True):
    got = model(inputs, training=training)
    assert isinstance(got["encoder_outputs"], list) and len(got["encoder_outputs"]) == 2
    assert set(got) == {{"default", "pooled_output", "sequence_output", "encoder_outputs"}}
    out[f"sequence_{{training}}"] = got["sequence_output"]
    out[f"pooled_{{training}}"] = got["pooled_output"]
out["logits"] = model.mlm({{**inputs, "masked_lm_positions": positions}})["mlm_logits"]
served = model.signatures["serving_default"](**inputs)
out["names"] = sorted(served)
out["served"] = served["sequence_output"]
out["mlm_names"] = sorted(model.signatures["mlm"].structured_outputs)
out["sizes"] = [len(model.variables), len(model.trainable_variables), len(model.mlm.trainable_variables)]
out["sizes"] += [len(model.regularization_losses)]
out["vocab"] = tf.io.read_file(model.vocab_file.asset_path).numpy().decode()[:3]
out["lower"] = model.do_lower_case.numpy()
for wrong in (
    {{k: tf.cast(v, tf.int64) for k, v in inputs.items()}}, {{**inputs, "more": positions}}, [*inputs.values()]
):
    try:
        model(wrong)
    except (ValueError, TypeError):
        continue
    raise AssertionError("wrong inputs are taken")
""",
        tmp_path,
    )
    expected = encoder({name: tf.constant(value) for name, value in batch().items()})
    for training in (False, True):
        for name in ("sequence", "pooled"):
            np.testing.assert_allclose(out[f"{name}_{training}"], expected[f"{name}_output"], atol=1e-5)
    logits = encoder.mlm({**batch(), "masked_lm_positions": positions})["mlm_logits"]
    np.testing.assert_allclose(out["logits"], logits, atol=1e-5)
    np.testing.assert_allclose(out["served"], expected["sequence_output"], atol=1e-5)
    hidden = ["encoder_outputs_0", "encoder_outputs_1"]
    assert list(out["names"]) == ["default", *hidden, "pooled_output", "sequence_output"]
    assert list(out["mlm_names"]) == [*hidden, "mlm_logits", "pooled_output", "sequence_output"]
    of_encoder = 5 + 2 * 16 + 2
    assert list(out["sizes"]) == [of_encoder, of_encoder, of_encoder + 5, 0]
    assert str(out["vocab"]) == "w0\n"
    assert out["lower"]


TRAIN = """
import os, tensorflow as tf, tensorflow_hub as hub, tf_keras
z = dict(np.load({inputs!r}))
labels = z.pop("labels")
inputs = {{k: tf_keras.Input((None,), dtype="int32", name=k) for k in z}}
layer = hub.KerasLayer({model!r}, trainable=True)
x = layer(inputs)["pooled_output"]
head = tf_keras.layers.Dense(1, kernel_initializer=tf_keras.initializers.Constant(0.1))
model = tf_keras.Model(inputs, head(x))
model.compile(tf_keras.optimizers.legacy.SGD(0.05), "mse")
out["loss"] = [model.train_on_batch(z, labels) for _ in range(20)]
out["weights"] = len(layer.trainable_weights)
mlm = hub.KerasLayer(tf.saved_model.load({model!r}).mlm, trainable=True)
positions = tf_keras.Input((None,), dtype="int32", name="masked_lm_positions")
got = mlm({{**inputs, "masked_lm_positions": positions}})["mlm_logits"]
model = tf_keras.Model({{**inputs, "masked_lm_positions": positions}}, got)
model.compile(tf_keras.optimizers.legacy.SGD(0.05), tf_keras.losses.SparseCategoricalCrossentropy(from_logits=True))
z["masked_lm_positions"] = z["input_mask"][:, :2]
out["mlm_loss"] = [model.train_on_batch(z, z["input_word_ids"][:, :2]) for _ in range(3)]
out["mlm_weights"] = len(mlm.trainable_weights)
"""


@pytest.mark.slow
def test_hub_keras_layer_trains_it_as_keras_3_trains_ours(
    encoder: BertEncoder, exported: Path, tmp_path: Path
) -> None:
    pytest.importorskip("tensorflow_hub", reason="needs tensorflow-hub, tf-keras and setuptools<82")
    import keras

    labels = np.array([[0.3], [-0.7], [0.1]], np.float32)
    np.savez(tmp_path / "inputs.npz", labels=labels, **batch())
    code = TRAIN.format(inputs=str(tmp_path / "inputs.npz"), model=str(exported))
    theirs = run_alone(code, tmp_path, TF_USE_LEGACY_KERAS="1")

    copy = BertEncoder.from_config(encoder.get_config())
    copy.build()
    for target, source in zip(copy.weights, encoder.weights, strict=True):
        target.assign(source)
    inputs = {name: keras.Input((None,), dtype="int32", name=name) for name in NAMES}
    head = keras.layers.Dense(1, kernel_initializer=keras.initializers.Constant(0.1))
    model = keras.Model(inputs, head(copy(inputs)["pooled_output"]))
    model.compile(keras.optimizers.SGD(0.05), "mse")
    ours = [model.train_on_batch(batch(), labels) for _ in range(20)]
    np.testing.assert_allclose(theirs["loss"], ours, rtol=0, atol=1e-4)
    assert ours[-1] < ours[0] / 2  # it did train
    assert theirs["weights"] == 5 + 2 * 16 + 2
    assert theirs["mlm_weights"] == theirs["weights"] + 5
    assert theirs["mlm_loss"][2] < theirs["mlm_loss"][0]


def test_dropout_works_in_training_and_only_there(tmp_path: Path) -> None:
    encoder = BertEncoder(CONFIG.replace(hidden_dropout_prob=0.5), add_pooler=False)
    (tmp_path / "model").mkdir()
    export_saved_model(encoder, tmp_path / "model")  # an empty directory is not in the way
    loaded = tf.saved_model.load(str(tmp_path / "model"))
    inputs = {name: tf.constant(value) for name, value in batch().items()}

    def output(training: bool) -> np.ndarray:
        return loaded(inputs, training=training)["sequence_output"].numpy()

    assert np.array_equal(output(False), output(False))
    first, second = output(True), output(True)
    assert not np.allclose(first, second)
    assert not np.allclose(first, output(False))


@pytest.mark.parametrize(("model_type", "mlm"), [("bert", True), ("distilbert", False)])
def test_it_is_pulled_back_as_it_was(model_type, mlm: bool, tmp_path: Path) -> None:
    epsilon = 1e-6 if model_type == "bert" else 1e-12  # DistilBERT's is not its configuration's to say
    config = CONFIG.replace(model_type=model_type, hidden_act="gelu", layer_norm_eps=epsilon)
    encoder = BertEncoder(config, mlm=mlm, name="another_name")
    export_saved_model(encoder, tmp_path / "model")
    again = pull_from_hub(tmp_path / "model", trainable=True)
    assert again.config == config
    assert (again.mlm_head is None) == (not mlm)
    assert [w.shape for w in again.weights] == [w.shape for w in encoder.weights]
    for one, other in zip(again.trainable_variables, encoder.trainable_variables, strict=True):
        assert np.array_equal(one, other), one.path


def test_what_was_pulled_is_exported_with_its_vocabulary(shared: Path, tmp_path: Path) -> None:
    encoder = pull_from_hub(shared / "reference" / "encoder")
    export_saved_model(encoder, tmp_path / "model")
    loaded = tf.saved_model.load(str(tmp_path / "model"))
    vocabulary = Path(loaded.vocab_file.asset_path.numpy().decode())
    assert vocabulary.read_bytes() == Path(encoder.vocab_file).read_bytes()
    assert loaded.do_lower_case.numpy()
    assert len(loaded.trainable_variables) == 39  # frozen here, and still for others to train
    io = np.load(shared / "reference" / "encoder_io.npz")
    outputs = loaded({name: tf.constant(io[f"c/in/{name}"]) for name in NAMES})
    np.testing.assert_allclose(outputs["sequence_output"], io["c/out/sequence_output"], atol=1e-5)


def test_an_ordinary_model_with_a_head(encoder: BertEncoder, tmp_path: Path) -> None:
    import keras

    inputs = {name: keras.Input((None,), dtype="int32", name=name) for name in NAMES}
    head = keras.layers.Dense(3, name="logits")
    model = keras.Model(inputs, {"logits": head(encoder(inputs)["pooled_output"])})
    export_saved_model(model, tmp_path / "model")
    loaded = tf.saved_model.load(str(tmp_path / "model"))
    tensors = {name: tf.constant(value) for name, value in batch().items()}
    np.testing.assert_allclose(loaded(tensors)["logits"], model(tensors)["logits"], atol=1e-5)
    assert list(loaded.signatures["serving_default"].structured_outputs) == ["logits"]


def test_nothing_is_overwritten_or_left_half_done(encoder: BertEncoder, tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "precious").write_text("x")
    with pytest.raises(FileExistsError, match="is not empty; choose another directory or pass --overwrite"):
        export_saved_model(encoder, tmp_path / "model")
    with pytest.raises(ValueError, match="does not exist; pass vocab_file="):
        export_saved_model(encoder, tmp_path / "new", vocab_file=tmp_path / "none.txt")
    with pytest.raises(ValueError, match="no functional Keras model; make one"):
        export_saved_model(object(), tmp_path / "new")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model"]
