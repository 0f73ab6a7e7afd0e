"""A new head is one `HeadSpec` and one short class: loading, saving, training, SavedModel, ONNX, gate and card
derive from them, and no other file is touched."""

from __future__ import annotations

import inspect
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
import tiny_bert

from tfbert_npu import export_onnx, export_saved_model, load_npu, pull_from_hub, tasks
from tfbert_npu import heads as table
from tfbert_npu.export import onnx_file
from tfbert_npu.export.gate import GateError
from tfbert_npu.heads import HeadSpec, LayerSpec, OutputSpec, register_head
from tfbert_npu.hub.card import CardInfo, make_card
from tfbert_npu.models.head import BertHead

NAMES = ("input_word_ids", "input_mask", "input_type_ids")
INPUTS = {name: np.ones((4, 6), np.int32) for name in NAMES}
INPUTS["input_word_ids"][:] = np.random.default_rng(0).integers(5, 40, (4, 6))


@pytest.fixture(scope="module")
def head() -> Iterator[type[BertHead]]:
    row = register_head(
        HeadSpec(
            "depth_regression",
            "ForDepthRegression",
            layers=(
                LayerSpec("inner", "depth.inner", "H", activation="tanh"),
                LayerSpec("outer", "depth.outer", 1),
            ),
            outputs=(OutputSpec("depth", ("B", 1)),),
            pooler=True,
            task="text-classification",
        )
    )

    @keras.saving.register_keras_serializable(package="tfbert_npu_tests")
    class BertForDepthRegression(BertHead):
        """Two layers over the pooled output, and a number."""

        spec = row

        def call(self, inputs: Mapping[str, Any], training: bool | None = None) -> Any:
            """The number, [B, 1]."""
            pooled = self.encoder(inputs, training=training)["pooled_output"]
            return self.outer(keras.ops.tanh(self.inner(self._drop(pooled, training))))

        def default_loss(self) -> keras.losses.Loss:
            """Mean squared error."""
            return keras.losses.MeanSquaredError()

    yield BertForDepthRegression
    del table._HEADS[row.name], BertHead._classes[row.name]


@pytest.fixture(scope="module")
def model(head: type[BertHead]) -> BertHead:
    keras.utils.set_random_seed(3)
    made = head(tiny_bert.config(initializer_range=0.3, hidden_dropout_prob=0.0))
    made.build()
    return made


@pytest.fixture(scope="module")
def directory(model: BertHead, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("saved")
    model.save_pretrained(path)
    (path / "vocab.txt").write_text("\n".join(tiny_bert.TOKENS) + "\n")
    return path


def test_the_class_is_short(head: type[BertHead]) -> None:
    assert len(inspect.getsource(head).splitlines()) <= 25


def test_saving_and_loading(model: BertHead, head: type[BertHead], directory: Path) -> None:
    assert json.loads((directory / "config.json").read_text())["architectures"] == ["BertForDepthRegression"]
    expected = np.asarray(model(INPUTS))
    np.testing.assert_allclose(head.from_pretrained(directory)(INPUTS), expected, atol=1e-6)
    pulled = pull_from_hub(directory, component="model")
    assert type(pulled) is head
    np.testing.assert_allclose(pulled(INPUTS), expected, atol=1e-6)


def test_training_and_a_keras_file(head: type[BertHead], tmp_path: Path) -> None:
    keras.utils.set_random_seed(4)
    model = head(tiny_bert.config(hidden_dropout_prob=0.0))
    model.compile(keras.optimizers.Adam(1e-2))
    wanted = np.array([[0.0], [1.0], [2.0], [3.0]], np.float32)
    losses = model.fit(INPUTS, wanted, epochs=15, verbose=0).history["loss"]
    assert losses[-1] < 0.5 * losses[0]
    model.save(tmp_path / "model.keras")
    np.testing.assert_allclose(
        keras.models.load_model(tmp_path / "model.keras")(INPUTS), model(INPUTS), atol=1e-6
    )


def test_saved_model(model: BertHead, tmp_path: Path) -> None:
    export_saved_model(model, tmp_path / "saved")
    loaded = tf.saved_model.load(str(tmp_path / "saved"))
    inputs = {name: tf.constant(value) for name, value in INPUTS.items()}
    got = loaded.signatures["serving_default"](**inputs)
    np.testing.assert_allclose(got["depth"], model(INPUTS), atol=1e-6)


@pytest.mark.parametrize("source", ["model", "directory"])
def test_onnx_and_its_gate(
    source: str, request: pytest.FixtureRequest, model: BertHead, tmp_path: Path
) -> None:
    manifest_of = tmp_path / "artifact"
    export_onnx(request.getfixturevalue(source), manifest_of)
    with load_npu(manifest_of, "onnx") as npu:
        assert npu.manifest.head == "depth_regression"
        np.testing.assert_allclose(npu(INPUTS)["depth"], model(INPUTS), atol=1e-5)
        assert npu.manifest.parity["depth"]["cosine"] > 0.999999


def test_the_gate_judges_the_number(model: BertHead, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another bias leaves the cosine of a single number at 1; the spread over all texts shows it."""
    write = onnx_file.graph_of

    def shifted(source: Any, options: Any) -> Any:
        state = {**source.state, "depth.outer.bias": source.state["depth.outer.bias"] + 10}
        return write(type(source)(source.config, state, source.head), options)

    monkeypatch.setattr(onnx_file, "graph_of", shifted)
    with pytest.raises(GateError, match="depth has cosine"):
        export_onnx(model, tmp_path / "model.onnx")
    assert not (tmp_path / "model.onnx").exists()


def test_the_card(directory: Path) -> None:
    card = make_card(directory, "me/depth", CardInfo())
    assert "pipeline_tag: text-classification" in card
    assert "BertForDepthRegression" in card
    assert 'component="model"' in card


def test_a_task_is_asked_of_a_head_that_names_no_commands(model: BertHead) -> None:
    """Its outputs tell whether they are a task's."""
    tokenizer = tiny_bert.tokenizer()
    ((one,),) = tasks.classify(
        model, tokenizer, "anna ran", labels=["depth"], problem_type="regression", seq_length=16
    )
    expected = np.asarray(model(tokenizer("anna ran", seq_length=16)))
    assert one.score == pytest.approx(float(expected[0, 0]), abs=1e-5)
    with pytest.raises(ValueError, match="the model gives logits and no start_logits"):
        tasks.answer(model, tokenizer, "who?", "anna ran")
