"""TF-Hub SavedModels rebuilt natively, against the outputs and gradients of the originals."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2

from tfbert_npu import pull_from_hub
from tfbert_npu.checkpoints.names import encoder_rows, pooler_rows
from tfbert_npu.checkpoints.variables import variable_at
from tfbert_npu.errors import CheckpointError

NAMES = ("input_word_ids", "input_mask", "input_type_ids")


@pytest.fixture(scope="module")
def reference(shared: Path) -> Path:
    return shared / "reference" / "encoder"


@pytest.fixture(scope="module")
def io(shared: Path) -> dict[str, np.ndarray]:
    return dict(np.load(shared / "reference" / "encoder_io.npz"))


@pytest.fixture(scope="module")
def encoder(reference: Path):
    return pull_from_hub(reference, trainable=True)


def inputs_of(io, case: str, *more: str) -> dict[str, tf.Tensor]:
    return {name: tf.constant(io[f"{case}/in/{name}"]) for name in (*NAMES, *more)}


@pytest.mark.parametrize("case", ["a", "b", "c"])
def test_every_output(encoder, io, case: str) -> None:
    outputs = encoder(inputs_of(io, case))
    assert set(outputs) == {"default", "pooled_output", "sequence_output", "encoder_outputs"}
    for name in ("default", "pooled_output", "sequence_output"):
        np.testing.assert_allclose(outputs[name], io[f"{case}/out/{name}"], rtol=0, atol=1e-5)
    assert isinstance(outputs["encoder_outputs"], list)
    for layer, hidden in enumerate(outputs["encoder_outputs"]):
        np.testing.assert_allclose(hidden, io[f"{case}/out/encoder_outputs/{layer}"], rtol=0, atol=1e-5)


@pytest.mark.parametrize("case", ["a", "b", "c"])
def test_every_output_of_the_mlm(encoder, io, case: str) -> None:
    outputs = encoder.mlm(inputs_of(io, case, "masked_lm_positions"))
    assert set(outputs) == {"mlm_logits", "pooled_output", "sequence_output", "encoder_outputs"}
    for name in ("pooled_output", "sequence_output"):
        np.testing.assert_allclose(outputs[name], io[f"{case}/mlm/{name}"], rtol=0, atol=1e-5)
    # Logits reach 28; 1e-5 of that is what float32 can tell apart after a sum over the hidden size.
    logits = io[f"{case}/mlm/mlm_logits"]
    np.testing.assert_allclose(
        outputs["mlm_logits"], logits, rtol=0, atol=1e-5 * max(1, np.abs(logits).max())
    )


def test_gradients(encoder, io) -> None:
    weights = np.linspace(-1, 1, 128, dtype=np.float32)
    mask = tf.cast(io["c/in/input_mask"], tf.float32)[:, :, None]
    with tf.GradientTape() as tape:
        outputs = encoder(inputs_of(io, "c"))
        loss = tf.reduce_sum(outputs["pooled_output"] * weights)
        loss += tf.reduce_sum(outputs["sequence_output"] * mask * weights) / 10
    np.testing.assert_allclose(loss, io["c/loss"], rtol=1e-5)
    rows = [*encoder_rows(encoder.config), *pooler_rows(encoder.config)]
    variables = [variable_at(encoder, row.attribute).value for row in rows]
    gradients = tape.gradient(loss, variables)
    assert len(rows) == sum(name.startswith("c/grad/") for name in io)
    for row, gradient in zip(rows, gradients, strict=True):
        expected = io[f"c/grad/{row.tfhub}:0"]
        actual = tf.convert_to_tensor(gradient).numpy().reshape(expected.shape)
        np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-4, err_msg=row.name)


def test_the_published_attributes(encoder, reference: Path) -> None:
    assert Path(encoder.vocab_file) == reference / "assets" / "bert_uncased_vocab.txt"
    assert encoder.do_lower_case is True
    assert encoder.config.hidden_act == "gelu_tanh"
    assert encoder.config.hidden_dropout_prob == encoder.config.attention_probs_dropout_prob == 0.1


def test_trainable_or_not(encoder, reference: Path) -> None:
    # As in the original, the words' head is `.mlm`'s to train and not the encoder's.
    root = tf.saved_model.load(str(reference))
    assert len(encoder.trainable_variables) == len(root.trainable_variables)
    assert len(encoder.mlm.trainable_variables) == len(root.mlm.trainable_variables)
    frozen = pull_from_hub(reference)
    assert not frozen.trainable_variables
    assert not frozen.mlm.trainable_variables
    frozen.trainable = True
    assert len(frozen.mlm.trainable_variables) == len(encoder.trainable_variables) + 5


def test_no_foreign_graph_is_loaded(reference: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args, **kwargs):
        raise AssertionError("the SavedModel was loaded")

    monkeypatch.setattr(tf.saved_model, "load", refuse)
    pull_from_hub(reference)


def test_importing_costs_no_tensorflow() -> None:
    code = "import sys, tfbert_npu; tfbert_npu.pull_from_hub; print('tensorflow' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


# -- other exports, made by editing the reference one


def edited(reference: Path, directory: Path, edit) -> Path:
    shutil.copytree(reference, directory)
    path = directory / "saved_model.pb"
    message = saved_model_pb2.SavedModel.FromString(path.read_bytes())
    edit(message.meta_graphs[0])
    path.write_bytes(message.SerializeToString())
    return directory


def every_node(graph):
    yield from graph.graph_def.node
    for function in graph.graph_def.library.function:
        yield from function.node_def


# How the BERTs of TF-Hub's first versions named their variables (tensorflow/models,
# official/nlp/bert/tf1_checkpoint_converter_lib.py, of 2019 and of 2020).
OLDER = {
    "v1": [
        (r"^word_embeddings/embeddings$", "bert_model/word_embeddings/embeddings"),
        (r"^position_embedding/embeddings$", "bert_model/embedding_postprocessor/position_embeddings"),
        (r"^type_embeddings/embeddings$", "bert_model/embedding_postprocessor/type_embeddings"),
        (r"^embeddings/layer_norm/", "bert_model/embedding_postprocessor/layer_norm/"),
        (r"^transformer/", "bert_model/encoder/"),
        (r"self_attention/attention_output/", "self_attention_output/"),
        (r"^pooler_transform/", "bert_model/pooler_transform/"),
    ],
    "v2": [
        (r"^position_embedding/embeddings$", "position_embedding/position_embeddings"),
        (r"self_attention/attention_output/", "self_attention_output/"),
        (r"^bert/cls/predictions/output_bias/bias$", "cls/predictions/output_bias"),
        (r"^bert/cls/", "cls/"),
    ],
    "scoped": [(r"^(?!bert/cls/)", "bert_encoder_v2/")],
}


@pytest.mark.parametrize("version", sorted(OLDER))
def test_older_names_of_variables(encoder, reference: Path, tmp_path: Path, version: str) -> None:
    def edit(graph):
        for node in graph.object_graph_def.nodes:
            if node.WhichOneof("kind") == "variable" and node.variable.name != "Variable":
                for pattern, replacement in OLDER[version]:
                    node.variable.name = re.sub(pattern, replacement, node.variable.name)
        if version == "v1":
            for node in every_node(graph):
                node.name = node.name.replace("transformer/layer_", "encoder/layer_")

    again = pull_from_hub(edited(reference, tmp_path / "older", edit))
    assert again.config == encoder.config
    for one, other in zip(again.weights, encoder.weights, strict=True):
        assert np.array_equal(one, other), one.path


@pytest.mark.parametrize("metadata", [True, False])
def test_without_a_masked_language_model(reference: Path, tmp_path: Path, metadata: bool) -> None:
    def edit(graph):
        children = graph.object_graph_def.nodes[0].children
        for name in ("mlm", "do_lower_case", "vocab_file"):
            children.remove(next(child for child in children if child.local_name == name))

    directory = edited(reference, tmp_path / "model", edit)
    if not metadata:
        (directory / "keras_metadata.pb").unlink()
    encoder = pull_from_hub(directory)
    assert encoder.mlm_head is None
    assert not hasattr(encoder, "vocab_file")
    with pytest.raises(CheckpointError, match="no vocab_file and do_lower_case"):
        pull_from_hub(directory, component="preprocessor")


@pytest.mark.parametrize(
    ("ops", "activation"),
    [
        (["Relu"], "relu"),
        (["Sigmoid", "Mul"], "silu"),
        (["Tanh"], "tanh"),
        ([], "linear"),
        (["Erf", "Mul"], "gelu"),
        (["Erfc", "Mul"], "gelu"),
        (["Elu"], None),
    ],
)
def test_the_activation_is_the_graphs(reference: Path, tmp_path: Path, ops: list[str], activation) -> None:
    def edit(graph):
        for function in graph.graph_def.library.function:
            for node in [n for n in function.node_def if "/activation/" in n.name]:
                prefix = node.name.partition("/activation/")[0]
                function.node_def.remove(node)
                if node.op == "Tanh":
                    for op in ops:
                        function.node_def.add(name=f"{prefix}/activation/{op}", op=op)

    directory = edited(reference, tmp_path / "model", edit)
    if activation is None:
        with pytest.raises(CheckpointError, match=r"activation that is not known here \(Elu\); pass trust"):
            pull_from_hub(directory)
    else:
        assert pull_from_hub(directory).config.hidden_act == activation


def test_dropout_and_epsilon_are_the_graphs(reference: Path, tmp_path: Path) -> None:
    def edit(graph):
        for node in every_node(graph):
            tensor = node.attr["value"].tensor
            if "/self_attention/dropout" in node.name and node.name.endswith("GreaterEqual/y"):
                tensor.float_val[0] = 0.25
            elif "dropout" in node.name and node.name.endswith("GreaterEqual/y"):
                tensor.float_val[0] = 0.5
            elif node.name.endswith("batchnorm/add/y"):
                tensor.float_val[0] = 1e-6

    config = pull_from_hub(edited(reference, tmp_path / "model", edit)).config
    assert config.attention_probs_dropout_prob == 0.25
    assert config.hidden_dropout_prob == 0.5
    assert config.layer_norm_eps == 1e-6


def _norm_first(graph):
    for node in every_node(graph):
        if node.name.endswith("layer_0/self_attention/query/einsum/Einsum"):
            node.input[0] = "transformer/layer_0/self_attention_layer_norm/batchnorm/add_1:z:0"


def _output_range(graph):
    for function in graph.graph_def.library.function:
        if any("transformer/layer_1/" in node.name for node in function.node_def):
            function.node_def.add(name="encoder/transformer/layer_1/strided_slice", op="StridedSlice")


def _projected(graph):
    for node in graph.object_graph_def.nodes:
        if node.variable.name == "pooler_transform/kernel":
            node.variable.name = "embedding_projection/kernel"


def _unknown(graph):
    for node in graph.object_graph_def.nodes:
        if node.variable.name == "pooler_transform/kernel":
            node.variable.name = "mixture/router"


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (_norm_first, r"normalizes before attention, not after it \(norm_first\)"),
        (_output_range, r"gives only some positions of its last layer \(output_range\)"),
        (_projected, "embeddings narrower than its hidden states"),
        (_unknown, r"variables that BERT does not have \(mixture/router\)"),
    ],
)
def test_what_is_built_otherwise_is_refused_by_its_part(
    reference: Path, tmp_path: Path, edit, message
) -> None:
    directory = edited(reference, tmp_path / "model", edit)
    with pytest.raises(CheckpointError, match=rf"{message}.*trust_saved_model=True"):
        pull_from_hub(directory)


# -- the preprocessor


@pytest.fixture(scope="module")
def preprocessor(shared: Path):
    return pull_from_hub(shared / "reference" / "preprocess")


@pytest.fixture(scope="module")
def texts(shared: Path) -> tuple[list[bytes], int]:
    import base64

    content = json.loads((shared / "reference" / "preprocess_texts.json").read_text())
    rows = next(value for value in content.values() if isinstance(value, list))
    return [base64.b64decode(row) for row in rows], content["n_valid"]


def test_the_preprocessor_gives_the_published_ids(preprocessor, texts, shared: Path) -> None:
    expected = np.load(shared / "reference" / "preprocess_io.npz")
    rows, n_valid = texts
    assert preprocessor.seq_length == 128
    outputs = preprocessor(tf.constant(rows[:n_valid]))
    for name in NAMES:
        np.testing.assert_array_equal(outputs[name], expected[f"root/{name}"], err_msg=name)


def test_a_preprocessor_from_the_encoders_vocabulary(reference: Path, preprocessor) -> None:
    other = pull_from_hub(reference, component="preprocessor")
    text = tf.constant(["Some Cased text, isn't it?"])
    for name, value in preprocessor(text).items():
        np.testing.assert_array_equal(other(text)[name], value)


# -- the snippets of TF-Hub's BERT model cards, `hub.KerasLayer(url)` written `pull_from_hub(directory)`


def test_snippet_of_the_encoder_card(shared: Path) -> None:
    import keras

    text_input = keras.layers.Input(shape=(), dtype="string")
    preprocessor = pull_from_hub(shared / "reference" / "preprocess")
    encoder_inputs = preprocessor(text_input)
    encoder = pull_from_hub(shared / "reference" / "encoder", trainable=True)
    outputs = encoder(encoder_inputs)
    pooled_output = outputs["pooled_output"]  # [batch_size, 128].
    sequence_output = outputs["sequence_output"]  # [batch_size, seq_length, 128].
    assert tuple(pooled_output.shape) == (None, 128)
    assert tuple(sequence_output.shape) == (None, 128, 128)

    embedding_model = keras.Model(text_input, pooled_output)
    sentences = tf.constant(["(your text here)"])
    assert embedding_model(sentences).shape == (1, 128)
    middle = keras.Model(text_input, outputs["encoder_outputs"][0])
    assert middle(sentences).shape == (1, 128, 128)


def test_snippet_of_the_masked_language_model(shared: Path, io) -> None:
    import keras

    encoder = pull_from_hub(shared / "reference" / "encoder", trainable=True)
    mlm_inputs = dict(  # noqa: C408 - as the card writes it
        input_word_ids=keras.Input((None,), dtype="int32"),
        input_mask=keras.Input((None,), dtype="int32"),
        input_type_ids=keras.Input((None,), dtype="int32"),
        masked_lm_positions=keras.Input((None,), dtype="int32"),
    )
    mlm_outputs = encoder.mlm(mlm_inputs)
    model = keras.Model(mlm_inputs, mlm_outputs["mlm_logits"])
    logits = model(inputs_of(io, "b", "masked_lm_positions"))
    np.testing.assert_allclose(logits, io["b/mlm/mlm_logits"], atol=1e-4)


def test_a_classifier_over_tf_data_with_preprocessing_in_map(shared: Path) -> None:
    import keras

    preprocessor = pull_from_hub(shared / "reference" / "preprocess")
    encoder = pull_from_hub(shared / "reference" / "encoder", trainable=True)
    data = tf.data.Dataset.from_tensor_slices((["good", "bad", "fine", "awful"], [1, 0, 1, 0]))
    data = data.batch(2).map(lambda text, label: (preprocessor(text), label))
    inputs = {name: keras.Input((128,), dtype="int32", name=name) for name in NAMES}
    x = keras.layers.Dropout(0.1)(encoder(inputs)["pooled_output"])
    model = keras.Model(inputs, keras.layers.Dense(1)(x))
    model.compile("adam", keras.losses.BinaryCrossentropy(from_logits=True))
    before = encoder.layers[0].attention.query.kernel.numpy()
    history = model.fit(data, epochs=2, verbose=0).history["loss"]
    assert np.isfinite(history).all()
    assert not np.array_equal(before, encoder.layers[0].attention.query.kernel.numpy())
