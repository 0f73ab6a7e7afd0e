"""`export_onnx` on real weights: against float64 numpy goldens and TensorFlow."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import onnx
import pytest

from tests.export.models import bert, padded_inputs, run_torch
from tfbert_npu.artifact.manifest import Manifest
from tfbert_npu.export.gate import GateError
from tfbert_npu.export.onnx_file import export_onnx
from tfbert_npu.onnx.running import run_onnx


def golden_cases(shared):
    folder = shared / "data/golden/minilm_numpy"
    arrays = np.load(folder / "minilm_dev.npz")
    for case in json.loads((folder / "minilm_dev.json").read_text())["cases"]:
        number = case["case"]
        yield (
            {
                "input_word_ids": arrays[f"{number}.input_ids"][None].astype(np.int32),
                "input_mask": arrays[f"{number}.attention_mask"][None].astype(np.int32),
                "input_type_ids": arrays[f"{number}.token_type_ids"][None].astype(np.int32),
            },
            arrays[f"{number}.hidden_states"],
            arrays[f"{number}.pooled"],
        )


def test_minilm_equals_float64_numpy(minilm, shared, tmp_path):
    path = export_onnx(minilm, tmp_path / "m.onnx", ["pooled_output", "encoder_outputs"])
    inputs, hidden, pooled = zip(*golden_cases(shared), strict=True)
    for batch, states, vector, got in zip(inputs, hidden, pooled, run_onnx(path, inputs), strict=True):
        kept = batch["input_mask"][0].astype(bool)
        np.testing.assert_allclose(got["pooled_output"][0], vector, atol=2e-5)
        for layer in range(6):
            np.testing.assert_allclose(
                got[f"encoder_outputs_{layer}"][0][kept], states[layer + 1][kept], atol=5e-5
            )


def test_a_keras_encoder_is_written_and_checked_against_itself(tmp_path):
    from tfbert_npu.config import BertConfig
    from tfbert_npu.models.encoder import BertEncoder

    config = BertConfig(
        vocab_size=60, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=24,
        max_position_embeddings=24, hidden_act="gelu_tanh", initializer_range=0.5,
    )  # fmt: skip
    encoder = BertEncoder(config)
    path = export_onnx(encoder, tmp_path / "m.onnx", batch=2, length=9)
    graph = onnx.load(path).graph
    assert [value.name for value in graph.output] == ["sequence_output", "pooled_output"]
    rng = np.random.default_rng(0)
    inputs = {
        "input_word_ids": rng.integers(0, 60, (2, 9)).astype(np.int32),
        "input_mask": np.array([[1] * 9, [1] * 4 + [0] * 5], np.int32),
        "input_type_ids": np.zeros((2, 9), np.int32),
    }
    expected = encoder(inputs)
    (got,) = run_onnx(path, [inputs])
    np.testing.assert_allclose(got["pooled_output"], expected["pooled_output"], atol=1e-5)
    real = inputs["input_mask"].astype(bool)
    np.testing.assert_allclose(
        got["sequence_output"][real], np.asarray(expected["sequence_output"])[real], atol=1e-5
    )


def test_a_graph_that_is_not_the_model_is_refused_and_the_old_file_kept(tmp_path, monkeypatch):
    from tfbert_npu.export import onnx_file
    from tfbert_npu.export.source import ExportSource

    from .models import bert

    config, state, _ = bert("BertModel")
    (tmp_path / "m.onnx").write_text("old")
    write = onnx_file.graph_of

    def wrong(source, options):
        name = "encoder.layer.1.output.dense.weight"
        changed = {**source.state, name: -source.state[name]}
        return write(dataclasses.replace(source, state=changed), options)

    monkeypatch.setattr(onnx_file, "graph_of", wrong)
    with pytest.raises(GateError, match="the ONNX file is not the model: sequence_output has cosine"):
        export_onnx(ExportSource(config, state), tmp_path / "m.onnx")
    assert (tmp_path / "m.onnx").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["m.onnx"]


def functional_model(build):
    import keras

    from tfbert_npu.config import BertConfig
    from tfbert_npu.models.encoder import BertEncoder

    config = BertConfig(
        vocab_size=100, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64,
        max_position_embeddings=40, initializer_range=0.2,
    )  # fmt: skip
    names = ("input_word_ids", "input_mask", "input_type_ids")
    inputs = {name: keras.Input((None,), dtype="int32", name=name) for name in names}
    return keras.Model(inputs, build(BertEncoder(config)(inputs), inputs))


def averaged(outputs, inputs):
    from keras import layers

    x = layers.Dropout(0.1)(outputs["encoder_outputs"][0])
    x = layers.Dense(24, activation="relu", bias_initializer="ones")(x)
    x = layers.GlobalAveragePooling1D()(x)
    x = layers.Concatenate()([x, outputs["default"], outputs["pooled_output"]])
    return [layers.Dense(3, name="scores")(x), layers.LayerNormalization(name="normed")(x)]


def test_layers_after_the_encoder_are_converted_and_the_encoder_stays_fused(tmp_path):
    model = functional_model(averaged)
    with pytest.warns(UserWarning, match="ReduceMean.*may leave unfused or to the CPU"):
        path = export_onnx(model, tmp_path / "m.onnx")
    graph = onnx.load(path).graph
    assert [output.name for output in graph.output] == ["scores", "normed"]
    kinds = [node.op_type for node in graph.node if not node.name.startswith("head/")]
    assert kinds.count("LayerNormalization") == 5
    rng = np.random.default_rng(0)
    for batch, length in ((1, 7), (3, 12)):
        mask = np.ones((batch, length), np.int32)
        mask[-1, 5:] = 0
        ids = rng.integers(0, 100, (batch, length)).astype(np.int32)
        inputs = {"input_word_ids": ids, "input_mask": mask, "input_type_ids": mask * 0}
        (got,) = run_onnx(path, [inputs])
        scores, normed = model(inputs)
        np.testing.assert_allclose(got["scores"], scores, atol=1e-4)
        np.testing.assert_allclose(got["normed"], normed, atol=1e-4)


@pytest.mark.parametrize(
    ("build", "why"),
    [
        (lambda outputs, inputs: inputs["input_mask"] * 2, "it holds 0 encoders"),
        (
            lambda outputs, inputs: outputs["sequence_output"] * inputs["input_mask"][..., None],
            "an input goes past the encoder",
        ),
    ],
)
def test_a_model_of_another_form_is_refused(tmp_path, build, why):
    with pytest.raises(ValueError, match=why):
        export_onnx(functional_model(build), tmp_path / "m.onnx")


def test_a_model_that_is_not_functional_is_refused(tmp_path):
    import keras

    import tfbert_npu.models.encoder  # noqa: F401 - the layers must be there for a model to be taken apart

    class Own(keras.Model):
        def call(self, inputs):
            return inputs

    with pytest.raises(ValueError, match="it is not functional"):
        export_onnx(Own(name="own"), tmp_path / "m.onnx")


def test_a_tf_hub_module_equals_its_published_outputs(shared, tmp_path):
    path = export_onnx(shared / "reference/encoder", tmp_path / "m.onnx")
    arrays = np.load(shared / "reference/encoder_io.npz")
    for case in "abc":
        inputs = {
            name: arrays[f"{case}/in/{name}"] for name in ("input_word_ids", "input_mask", "input_type_ids")
        }
        (got,) = run_onnx(path, [inputs])
        np.testing.assert_allclose(got["pooled_output"], arrays[f"{case}/out/pooled_output"], atol=1e-4)
        real = inputs["input_mask"].astype(bool)
        expected = arrays[f"{case}/out/sequence_output"]
        np.testing.assert_allclose(got["sequence_output"][real], expected[real], atol=1e-4)


def test_a_google_checkpoint_is_exported(shared, tmp_path):
    path = export_onnx(shared / "data/weights/tf1_keras_bert_toy", tmp_path / "m.onnx")
    assert [value.name for value in onnx.load(path).graph.output] == ["sequence_output", "pooled_output"]


@pytest.mark.parametrize("embeddings", ["inside", "host"])
def test_a_directory_runs_on_the_cpu_without_the_toolchain(tmp_path, embeddings):
    """transformers wrote the weights and says what the logits are."""
    from tfbert_npu import load_npu

    config, _, model = bert("BertForSequenceClassification", num_labels=3)
    source = tmp_path / "source"
    model.save_pretrained(source)
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *(f"w{n}" for n in range(92))]
    (source / "vocab.txt").write_text("".join(f"{piece}\n" for piece in pieces))
    out = tmp_path / "out"
    assert export_onnx(source, out, embeddings=embeddings) == out
    inputs = padded_inputs(config)
    least = 1e-5 if embeddings == "inside" else 2e-3  # on the host the tables are in float16
    with load_npu(out, backend="onnx") as loaded:
        got = loaded(inputs)["logits"]
    assert Manifest.read(out).parity["logits"]["cosine"] > 0.9999
    np.testing.assert_allclose(got, run_torch(model, inputs).logits.numpy(), atol=least)
    assert (out / "vocab.txt").read_bytes() == (source / "vocab.txt").read_bytes()
    with pytest.raises(FileExistsError, match="not empty"):
        export_onnx(source, out)
    export_onnx(source, out, embeddings=embeddings, overwrite=True)
    with pytest.raises(ValueError, match="any batch and length"):
        export_onnx(source, tmp_path / "fixed", batch=2)
