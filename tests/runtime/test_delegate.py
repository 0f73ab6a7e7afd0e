"""`BertEncoder.delegate_to`: the same model, computed elsewhere."""

from __future__ import annotations

import copy
import logging
import re
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

import tfbert_npu
from tests.runtime.artifacts import change_manifest, requests
from tests.runtime.conftest import Board
from tests.runtime.encoders import export_small, small_encoder
from tfbert_npu import BertEncoder, BertForSequenceClassification, export_saved_model
from tfbert_npu.artifact.hashing import state_sha256
from tfbert_npu.artifact.manifest import Manifest
from tfbert_npu.delegate import MissingOutputError, Settings
from tfbert_npu.errors import ArtifactError
from tfbert_npu.export.source import source_of
from tfbert_npu.runtime import BackendError

FULL = ("pooled_output", "sequence_output", "encoder_outputs")


@pytest.fixture
def encoder() -> BertEncoder:
    return small_encoder()


def batch(size: int = 3, width: int = 20, seed: int = 0) -> dict[str, np.ndarray]:
    return requests(np.random.default_rng(seed), size, width, vocabulary=97)


def assert_same(got: dict, wanted: dict, inputs: dict, hidden: bool = False) -> None:
    real = np.asarray(inputs["input_mask"]) == 1
    assert got.keys() == wanted.keys()
    for name in ("pooled_output", "default", "mlm_logits"):
        if name in wanted:
            np.testing.assert_allclose(got[name], wanted[name], atol=1e-4)
    np.testing.assert_allclose(
        np.asarray(got["sequence_output"])[real], np.asarray(wanted["sequence_output"])[real], atol=1e-4
    )
    assert len(got["encoder_outputs"]) == len(wanted["encoder_outputs"])
    for ours, theirs in zip(
        got["encoder_outputs"][0 if hidden else -1 :],
        wanted["encoder_outputs"][0 if hidden else -1 :],
        strict=True,
    ):
        np.testing.assert_allclose(np.asarray(ours)[real], np.asarray(theirs)[real], atol=1e-4)


@pytest.mark.parametrize("outputs", [None, FULL])
@pytest.mark.parametrize("backend", ["rknn", "onnx"])
def test_eager_and_in_a_graph(
    encoder: BertEncoder, tmp_path: Path, board: Board, backend: str, outputs: object
) -> None:
    board()
    inputs = batch()
    wanted = encoder(inputs)
    directory = export_small(encoder, tmp_path / "a", outputs=outputs)
    assert encoder.delegate_to(directory, backend) is encoder
    assert encoder.runs_on == backend
    assert encoder.npu is not None
    assert_same(encoder(inputs), wanted, inputs, hidden=outputs is not None)
    assert encoder.npu.stats().requests == 1

    traced: list[dict] = []

    @tf.function(input_signature=[{name: tf.TensorSpec([None, 20], tf.int32) for name in inputs}])
    def call(inputs: dict) -> dict:
        result = encoder(inputs)
        traced.append(result)
        names = ["pooled_output", "default", "sequence_output"]
        last = result["encoder_outputs"] if outputs else [result["sequence_output"]] * 2
        return {**{name: result[name] for name in names}, "encoder_outputs": last}

    assert_same(call(inputs), wanted, inputs, hidden=outputs is not None)
    assert traced[0]["pooled_output"].shape == (None, 16)
    assert traced[0]["sequence_output"].shape.as_list() == [None, 20, 16]
    assert all(value.dtype == tf.float32 for value in traced[0]["encoder_outputs"])
    encoder.undelegate()
    assert encoder.runs_on == "tf"
    assert encoder.npu is None
    np.testing.assert_array_equal(encoder(inputs)["pooled_output"], wanted["pooled_output"])


def test_a_compiled_functional_model_goes_over_and_back(
    encoder: BertEncoder, tmp_path: Path, board: Board
) -> None:
    driver = board()
    specs = {name: keras.Input((None,), dtype="int32", name=name) for name in batch()}
    outputs = encoder(specs)
    model = keras.Model(specs, keras.layers.Dense(2)(outputs["pooled_output"]))
    model.compile("sgd", "mse")
    inputs = batch(8, 24)
    wanted = model.predict(inputs, verbose=0)
    directory = export_small(encoder, tmp_path / "a")
    encoder.delegate_to(directory)
    before = sum(driver.calls_on.values())
    np.testing.assert_allclose(model.predict(inputs, verbose=0), wanted, atol=1e-4)
    assert sum(driver.calls_on.values()) > before
    model.run_eagerly = True
    np.testing.assert_allclose(model.predict(inputs, verbose=0), wanted, atol=1e-4)
    model.run_eagerly = False
    with pytest.raises(ValueError, match="neither dropout nor gradients"):
        model.fit(inputs, np.zeros((8, 2)), verbose=0)
    encoder.undelegate()
    before = sum(driver.calls_on.values())
    np.testing.assert_array_equal(model.predict(inputs, verbose=0), wanted)
    assert sum(driver.calls_on.values()) == before
    assert driver.open == {}
    model.fit(inputs, np.zeros((8, 2)), verbose=0)
    with pytest.raises(ArtifactError, match="exported from other weights than"):
        encoder.delegate_to(directory)
    assert encoder.runs_on == "tf"
    encoder.delegate_to(directory, allow_other_weights=True)
    assert encoder.runs_on == "rknn"
    encoder.undelegate()


def test_tf_data(encoder: BertEncoder, tmp_path: Path, board: Board) -> None:
    board()
    inputs = batch(7)
    wanted = encoder(inputs)["pooled_output"]
    encoder.delegate_to(export_small(encoder, tmp_path / "a"))
    data = (
        tf.data.Dataset.from_tensor_slices(inputs)
        .batch(2)
        .map(lambda x: encoder(x)["pooled_output"], num_parallel_calls=4)
    )
    assert data.element_spec.shape.as_list() == [None, 16]
    np.testing.assert_allclose(np.concatenate(list(data.as_numpy_iterator())), wanted, atol=1e-4)
    encoder.undelegate()


def test_the_head_trains_on_a_delegated_encoder(encoder: BertEncoder, tmp_path: Path, board: Board) -> None:
    board()
    encoder.trainable = False
    encoder.delegate_to(export_small(encoder, tmp_path / "a"))
    head = keras.layers.Dense(1)
    inputs = batch()
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(head(encoder(inputs)["pooled_output"]))
    assert tape.gradient(loss, head.kernel.value) is not None
    encoder.trainable = True
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(head(encoder(inputs)["pooled_output"]))
    with pytest.raises(ValueError, match="no gradient through an encoder that runs on an NPU"):
        tape.gradient(loss, encoder.trainable_variables[0].value)
    encoder.undelegate()


def test_missing_hidden_states(encoder: BertEncoder, tmp_path: Path, board: Board) -> None:
    board()
    encoder.delegate_to(export_small(encoder, tmp_path / "a"))
    inputs = batch()
    first, last = encoder(inputs)["encoder_outputs"]
    assert np.isfinite(last).all()
    assert (first.shape, first.dtype) == ((3, 20, 16), "float32")
    assert not hasattr(first, "_keras_mask")
    assert repr(copy.deepcopy(first)) == repr(first)
    message = (
        r"encoder_outputs is not in .*, which gives sequence_output, pooled_output; leave it unused, or "
        r"export with outputs=\('sequence_output', 'pooled_output', 'encoder_outputs'\)"
    )
    assert re.search(message, repr(first))
    uses: list[Callable[[Any], Any]] = [
        np.asarray,
        np.mean,
        tf.convert_to_tensor,
        tf.reduce_mean,
        keras.ops.mean,
        keras.layers.Dense(2),
        lambda hidden: hidden + 1,
        lambda hidden: last + hidden,
        lambda hidden: hidden[:, 0],
        lambda hidden: hidden.numpy(),
        lambda hidden: tf.stack([last, hidden]),
    ]
    for use in uses:
        with pytest.raises(MissingOutputError, match=message):
            use(first)
        with pytest.raises(MissingOutputError, match=message):
            tf.function(lambda use=use: use(encoder(inputs)["encoder_outputs"][0]), autograph=False)()
    with pytest.raises(MissingOutputError, match=message):
        tf.function(lambda: encoder(inputs))()
    encoder.undelegate()


@pytest.mark.parametrize("eagerly", [False, True])
def test_models_with_missing_hidden_states(
    encoder: BertEncoder, tmp_path: Path, board: Board, eagerly: bool
) -> None:
    """Who passes the structure on is served; who uses what is missing is told so."""
    board()
    specs = {name: keras.Input((None,), dtype="int32", name=name) for name in batch()}
    inner = keras.Model(specs, encoder(specs))
    outer = keras.Model(specs, keras.layers.Dense(2)(inner(specs)["pooled_output"]))
    hidden = keras.Model(specs, keras.layers.Dense(2)(inner(specs)["encoder_outputs"][0]))
    inputs = batch()
    wanted = outer.predict(inputs, verbose=0)
    encoder.delegate_to(export_small(encoder, tmp_path / "a"))
    for model in (inner, outer, hidden):
        model.run_eagerly = eagerly
    np.testing.assert_allclose(outer.predict(inputs, verbose=0), wanted, atol=1e-4)
    with pytest.raises(MissingOutputError, match="encoder_outputs is not in"):
        hidden.predict(inputs, verbose=0)
    with pytest.raises(MissingOutputError, match="encoder_outputs is not in"):
        inner.predict(inputs, verbose=0)
    encoder.undelegate()
    assert inner.predict(inputs, verbose=0)["encoder_outputs"][0].shape == (3, 20, 16)


@pytest.mark.parametrize("positions", [None, 5])
def test_mlm(tmp_path: Path, board: Board, positions: int | None) -> None:
    board()
    encoder = small_encoder(mlm=True)
    inputs = batch()
    lengths = inputs["input_mask"].sum(axis=1)
    places = np.stack([np.arange(4) % length for length in lengths]).astype(np.int32)
    wanted = encoder.mlm({**inputs, "masked_lm_positions": places})
    names = ("mlm_logits", "pooled_output", "sequence_output")
    directory = export_small(encoder.mlm, tmp_path / "a", outputs=names, masked_positions=positions)
    encoder.delegate_to(directory)
    assert_same(encoder.mlm({**inputs, "masked_lm_positions": places}), wanted, inputs)
    traced = tf.function(lambda: encoder.mlm({**inputs, "masked_lm_positions": places})["mlm_logits"])()
    np.testing.assert_allclose(traced, wanted["mlm_logits"], atol=1e-4)
    encoder.delegate_to(export_small(encoder.undelegate(), tmp_path / "b"))  # the head stays in TensorFlow
    assert_same(encoder.mlm({**inputs, "masked_lm_positions": places}), wanted, inputs)
    encoder.undelegate()


def test_embeddings_on_the_host(encoder: BertEncoder, tmp_path: Path, board: Board) -> None:
    driver = board()
    inputs = batch(5, 30)
    wanted = encoder(inputs)
    encoder.delegate_to(export_small(encoder, tmp_path / "a", embeddings="host"))
    got = encoder(inputs)
    real = inputs["input_mask"] == 1
    # The tables are kept in float16.
    np.testing.assert_allclose(got["sequence_output"][real], wanted["sequence_output"][real], atol=5e-3)
    assert driver.seen[-1][0][0].startswith("attention_bias:float32")
    encoder.undelegate()


def test_mixed_precision(tmp_path: Path, board: Board) -> None:
    board()
    encoder = small_encoder(dtype="mixed_bfloat16")
    inputs = batch()
    wanted = encoder(inputs)
    encoder.delegate_to(export_small(encoder, tmp_path / "a"))
    got = encoder(inputs)
    assert got["pooled_output"].dtype == tf.bfloat16
    np.testing.assert_allclose(
        np.float32(got["pooled_output"]), np.float32(wanted["pooled_output"]), atol=0.1
    )
    encoder.undelegate()


def test_ids_out_of_range_in_a_graph(encoder: BertEncoder, tmp_path: Path, board: Board) -> None:
    board()
    encoder.delegate_to(export_small(encoder, tmp_path / "a"))
    inputs = {name: tf.constant(value) for name, value in batch().items()}
    call = tf.function(lambda ids: encoder({**inputs, "input_word_ids": ids})["pooled_output"])
    with pytest.raises(tf.errors.InvalidArgumentError, match="the vocabulary has 0 to 96"):
        call(inputs["input_word_ids"] + 97)
    encoder.undelegate()


def test_a_stale_graph_says_so(encoder: BertEncoder, tmp_path: Path, board: Board) -> None:
    board()
    encoder.delegate_to(export_small(encoder, tmp_path / "a"))
    inputs = {name: tf.constant(value) for name, value in batch().items()}
    call = tf.function(lambda: encoder(inputs)["pooled_output"])
    call()
    encoder.undelegate()
    with pytest.raises(tf.errors.UnknownError, match="trace the function again"):
        call()


def test_no_graph_with_a_py_function_is_saved(encoder: BertEncoder, tmp_path: Path, board: Board) -> None:
    board()
    encoder.delegate_to(export_small(encoder, tmp_path / "a"))
    specs = {name: keras.Input((None,), dtype="int32", name=name) for name in batch()}
    model = keras.Model(specs, encoder(specs)["pooled_output"])
    with pytest.raises(AssertionError, match="runs_on_an_NPU_undelegate_before_saving"):
        model.export(tmp_path / "exported", verbose=False)
    head = BertForSequenceClassification(encoder, labels=["no", "yes"])
    outer = keras.Model(specs, keras.layers.Dense(2)(model(specs)))
    for exported in (encoder, model, outer, head):
        within = "" if exported is encoder else f" in {exported.name}"
        message = rf"^{encoder.name}{within} runs on rknn, not in TensorFlow; call .undelegate\(\) first$"
        with pytest.raises(ValueError, match=message):
            export_saved_model(exported, tmp_path / "saved")
        with pytest.raises(ValueError, match=message):
            source_of(exported)
    assert not (tmp_path / "saved").exists()
    encoder.undelegate()
    model.export(tmp_path / "exported", verbose=False)
    export_saved_model(outer, tmp_path / "saved")


RELOAD = """
import sys, warnings
import numpy as np, keras, tfbert_npu
inputs = dict(np.load(sys.argv[2]))
wanted = inputs.pop("wanted")
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    model = keras.models.load_model(sys.argv[1])
for warning in caught:
    if "delegated" in str(warning.message):
        print("WARNING", warning.message)
encoder = next(layer for layer in model.layers if isinstance(layer, tfbert_npu.BertEncoder))
try:
    np.testing.assert_allclose(model.predict(inputs, verbose=0), wanted, atol=1e-4)
except Exception as error:
    print(str(error))
print(encoder.runs_on)
encoder.undelegate()
np.testing.assert_allclose(model.predict(inputs, verbose=0), wanted, atol=1e-4)
print(encoder.runs_on)
"""


def test_keras_files_bind_again_in_a_new_process(encoder: BertEncoder, tmp_path: Path) -> None:
    directory = export_small(encoder, tmp_path / "a")
    specs = {name: keras.Input((None,), dtype="int32", name=name) for name in batch()}
    model = keras.Model(specs, encoder(specs)["pooled_output"])
    encoder.delegate_to(directory, "onnx", threads=1)
    inputs = batch()
    np.savez(tmp_path / "inputs.npz", wanted=model.predict(inputs, verbose=0), **inputs)
    model.save(tmp_path / "m.keras")
    encoder.undelegate()

    def reload() -> list[str]:
        command = [sys.executable, "-c", RELOAD, str(tmp_path / "m.keras"), str(tmp_path / "inputs.npz")]
        result = subprocess.run(command, capture_output=True, text=True, check=False)
        assert result.returncode == 0, result.stderr
        return result.stdout.strip().splitlines()

    assert reload()[-2:] == ["onnx", "tf"]
    directory.rename(tmp_path / "elsewhere")
    lines = reload()
    assert lines[0].startswith("WARNING")
    assert "which is missing; call .delegate_to() with its new place" in lines[0]
    assert any("on which" in line and "is missing; copy it there" in line for line in lines)
    assert lines[-1] == "tf"


def test_settings_are_kept_as_plain_values_in_the_form_of_before(tmp_path: Path) -> None:
    settings = Settings.of(
        tmp_path, {"backend": "onnx", "cores": (0, 2), "on_error": "tf", "toolchain": tmp_path / "venv"}
    )
    # What the first `.keras` files of delegated layers hold: one flat dict.
    assert settings.to_dict() == {
        "artifact_dir": str(tmp_path),
        "artifact_sha256": None,
        "backend": "onnx",
        "cores": [0, 2],
        "truncate": False,
        "timeout": 30.0,
        "lend_timeout": 60.0,
        "on_error": "tf",
        "retry_after": 30.0,
        "check_finite": False,
        "warm_up": True,
        "threads": None,
        "file": None,
        "allow_other_weights": False,
    }
    with pytest.warns(UserWarning, match="which is missing"):
        restored = BertEncoder.from_config({**small_encoder().get_config(), "delegation": settings.to_dict()})
    assert restored.delegation is not None
    assert restored.delegation.settings.tf_on_error
    assert restored.delegation.settings.to_dict() == {**settings.to_dict(), "artifact_sha256": ""}


@pytest.mark.parametrize("form", ["toolchain", "other artifact", "no digest"])
def test_a_file_grants_itself_nothing(encoder: BertEncoder, tmp_path: Path, board: Board, form: str) -> None:
    """Neither a program, nor an artifact other than the one that it was saved with."""
    board()
    encoder.delegate_to(export_small(encoder, tmp_path / "a"))
    config = encoder.get_config()
    delegation = config["delegation"]
    assert "toolchain" not in delegation
    if form == "toolchain":  # as 0.1 wrote it
        delegation["toolchain"] = str(tmp_path / "evil")
    elif form == "no digest":
        del delegation["artifact_sha256"]
    else:
        manifest = tmp_path / "a" / "manifest.json"
        manifest.write_text(manifest.read_text() + "\n")
    loaded = BertEncoder.from_config(config)
    loaded.build()
    loaded.set_weights(encoder.get_weights())
    if form == "toolchain":
        assert loaded.delegation is not None
        assert loaded.delegation.settings.runtime.toolchain is None
        assert_same(loaded(batch()), encoder(batch()), batch())
    else:
        with pytest.raises(ArtifactError, match=r"is not the artifact .* call \.delegate_to"):
            loaded(batch())
        loaded.undelegate()
    encoder.undelegate()


@pytest.mark.parametrize("trained", ["BertForSequenceClassification", "BertForPreTraining"])
def test_the_encoder_of_a_checkpoint_with_a_head(tmp_path: Path, board: Board, trained: str) -> None:
    board()
    model = getattr(tfbert_npu, trained)(small_encoder(mlm=trained == "BertForPreTraining"))
    model.build()
    model.save_pretrained(tmp_path / "trained")
    encoder = BertEncoder.from_pretrained(tmp_path / "trained")
    inputs = batch()
    wanted = encoder(inputs)
    of_directory = export_small(tmp_path / "trained", tmp_path / "of_directory", head="encoder")
    for directory in (of_directory, export_small(model.encoder, tmp_path / "of_encoder")):
        encoder.delegate_to(directory)
        assert_same(encoder(inputs), wanted, inputs)
        assert model.encoder.delegate_to(directory).runs_on == "rknn"
        model.encoder.undelegate()
        encoder.undelegate()
    assert Manifest.read(of_directory).source_sha256 == source_of(model.encoder).weights_sha256
    variable = encoder.layers[0].output_projection.bias
    variable.assign(variable + 1e-6)
    with pytest.raises(ArtifactError, match="other weights than"):
        encoder.delegate_to(of_directory)


def test_an_artifact_whose_hash_covers_an_unexported_mlm_head(tmp_path: Path, board: Board) -> None:
    """Version 0.1.0 hashed every tensor of the checkpoint."""
    board()
    encoder = small_encoder(mlm=True)
    encoder.save_pretrained(tmp_path / "model")
    directory = export_small(tmp_path / "model", tmp_path / "a", head="encoder")
    everything = state_sha256(source_of(tmp_path / "model").state)
    assert everything != Manifest.read(directory).source_sha256
    change_manifest(directory, source_sha256=everything)
    assert encoder.delegate_to(directory).runs_on == "rknn"
    encoder.undelegate()


def test_wrong_artifacts(encoder: BertEncoder, tmp_path: Path, board: Board) -> None:
    board()
    with pytest.raises(ArtifactError, match="is missing"):
        encoder.delegate_to(tmp_path / "nothing")
    other = small_encoder(1)
    with pytest.raises(ArtifactError, match="other weights than"):
        encoder.delegate_to(export_small(other, tmp_path / "other"))
    with pytest.raises(TypeError, match="no option 'core'; known are"):
        encoder.delegate_to(tmp_path, core=1)
    with pytest.raises(ValueError, match=r"on_error must be one of \('raise', 'tf', 'onnx'\)"):
        encoder.delegate_to(tmp_path, on_error="ignore")
    assert encoder.runs_on == "tf"


@pytest.mark.parametrize("on_error", ["tf", "onnx"])
def test_fallback_by_policy(
    encoder: BertEncoder, tmp_path: Path, board: Board, caplog: pytest.LogCaptureFixture, on_error: str
) -> None:
    driver = board()
    inputs = batch()
    wanted = encoder(inputs)
    directory = export_small(encoder, tmp_path / "a")
    encoder.delegate_to(directory, on_error=on_error, retry_after=0.5)
    assert encoder.npu is not None
    call = tf.function(lambda inputs: encoder(inputs)["pooled_output"])
    call(inputs)
    with caplog.at_level(logging.WARNING, "tfbert_npu"):
        driver.faults.outputs_code = -1
        for _ in range(3):
            assert_same(encoder(inputs), wanted, inputs)
            np.testing.assert_allclose(call(inputs), wanted["pooled_output"], atol=1e-4)
    assert len([r for r in caplog.records if "stands in for it" in r.getMessage()]) == 1
    assert encoder.runs_on.startswith(f"{on_error} (rknn failed: the NPU failed at")
    assert encoder.npu.stats().fallback_requests == 6
    driver.faults.outputs_code = 0
    threading.Event().wait(0.6)
    assert_same(encoder(inputs), wanted, inputs)
    assert encoder.runs_on == "rknn"
    driver.faults.outputs_code = -1
    encoder.delegate_to(directory, on_error="raise", warm_up=False)
    with pytest.raises(BackendError, match="the NPU failed"):
        encoder(inputs)
    encoder.undelegate()


def test_a_start_that_fails_falls_back_too(encoder: BertEncoder, tmp_path: Path, board: Board) -> None:
    driver = board()
    driver.faults.init_code = -1
    inputs = batch()
    wanted = encoder(inputs)
    directory = export_small(encoder, tmp_path / "a")
    with pytest.raises(BackendError, match="init_runtime returned -1"):
        encoder.delegate_to(directory)
    assert encoder.runs_on == "tf"
    encoder.delegate_to(directory, on_error="tf", retry_after=0.2)
    assert_same(encoder(inputs), wanted, inputs)
    assert encoder.runs_on.startswith("tf (rknn failed")
    driver.faults.init_code = 0
    threading.Event().wait(0.3)
    assert_same(encoder(inputs), wanted, inputs)
    assert encoder.runs_on == "rknn"
    encoder.undelegate()
    assert driver.open == {}
