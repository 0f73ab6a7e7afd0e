"""How the encoder behaves as a Keras layer: modes, training, precision, saving."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfbert_npu import BertConfig, BertEncoder

NAMES = ("input_word_ids", "input_mask", "input_type_ids")


def symbolic(*more: str) -> dict[str, Any]:
    return {name: keras.Input((None,), dtype="int32", name=name) for name in (*NAMES, *more)}


def test_outputs_of_the_contract(config: BertConfig, batch: dict[str, np.ndarray]) -> None:
    outputs = BertEncoder(config)(batch)
    assert set(outputs) == {"pooled_output", "sequence_output", "encoder_outputs", "default"}
    assert outputs["pooled_output"].shape == (4, 24)
    assert outputs["sequence_output"].shape == (4, 16, 24)
    assert isinstance(outputs["encoder_outputs"], list)
    assert [tensor.shape for tensor in outputs["encoder_outputs"]] == [(4, 16, 24)] * 3


def test_symbolic_outputs_are_those_of_the_call(config: BertConfig, batch: dict[str, np.ndarray]) -> None:
    encoder = BertEncoder(config, mlm=True, dtype="mixed_float16")
    positions = np.zeros((4, 5), np.int32)
    for layer, inputs in ((encoder, batch), (encoder.mlm, {**batch, "masked_lm_positions": positions})):
        spec = layer(
            {name: keras.Input(batch_shape=value.shape, dtype="int32") for name, value in inputs.items()}
        )
        real = layer(inputs)
        assert keras.tree.map_structure(
            lambda x: (tuple(x.shape), keras.backend.standardize_dtype(x.dtype)), spec
        ) == (
            keras.tree.map_structure(
                lambda x: (tuple(x.shape), keras.backend.standardize_dtype(x.dtype)), real
            )
        )


def test_padding_does_not_reach_the_tokens(config: BertConfig, batch: dict[str, np.ndarray]) -> None:
    encoder = BertEncoder(config)
    together = encoder(batch)["sequence_output"]
    for row, length in enumerate(batch["input_mask"].sum(axis=1)):
        alone = encoder({name: value[row : row + 1, :length] for name, value in batch.items()})
        np.testing.assert_allclose(together[row, :length], alone["sequence_output"][0], rtol=0, atol=1e-5)


def test_causal_attention_looks_only_back(config: BertConfig, batch: dict[str, np.ndarray]) -> None:
    encoder = BertEncoder(config.replace(initializer_range=0.5), causal=True)
    before = encoder(batch)["sequence_output"].numpy()
    changed = {**batch, "input_word_ids": batch["input_word_ids"].copy()}
    changed["input_word_ids"][0, 10] = 1 + changed["input_word_ids"][0, 10] % 90
    after = encoder(changed)["sequence_output"].numpy()
    np.testing.assert_array_equal(before[0, :10], after[0, :10])
    assert np.abs(before[0, 10:] - after[0, 10:]).max() > 1e-3


def test_dropout_works_in_training_only(config: BertConfig, batch: dict[str, np.ndarray]) -> None:
    encoder = BertEncoder(config)
    calm = encoder(batch)["sequence_output"]
    np.testing.assert_array_equal(calm, encoder(batch, training=False)["sequence_output"])
    first = encoder(batch, training=True)["sequence_output"]
    second = encoder(batch, training=True)["sequence_output"]
    assert np.abs(first - calm).max() > 0.01
    assert np.abs(first - second).max() > 0.01
    without = BertEncoder(config.replace(hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0))
    np.testing.assert_array_equal(
        without(batch)["sequence_output"], without(batch, training=True)["sequence_output"]
    )


def test_dropout_keeps_the_mean() -> None:
    from tfbert_npu.models.common import dropout

    x = tf.ones((400, 500))
    dropped = dropout(x, 0.25, tf.constant([1, 2]), salt=3).numpy()
    assert abs((dropped == 0).mean() - 0.25) < 0.01
    np.testing.assert_allclose(dropped[dropped != 0], 1 / 0.75, rtol=1e-6)
    assert np.any(dropped != dropout(x, 0.25, tf.constant([1, 2]), salt=4).numpy())


@pytest.mark.parametrize("jit_compile", [False, True])
def test_gradient_checkpointing_changes_no_gradient(
    config: BertConfig, batch: dict[str, np.ndarray], jit_compile: bool
) -> None:
    """The second run of a block must drop the units that the first one dropped."""

    def gradients(checkpointing: bool) -> list[np.ndarray]:
        keras.utils.set_random_seed(5)
        encoder = BertEncoder(config, gradient_checkpointing=checkpointing)
        encoder.build()

        @tf.function(jit_compile=jit_compile)
        def step(inputs: Any) -> Any:
            with tf.GradientTape() as tape:
                outputs = encoder(inputs, training=True)
                loss = tf.reduce_sum(outputs["sequence_output"][..., :5] ** 2)
                loss += tf.reduce_sum(outputs["pooled_output"])
            return tape.gradient(loss, [variable.value for variable in encoder.trainable_variables])

        tensors = step({name: tf.constant(value) for name, value in batch.items()})
        return [tf.convert_to_tensor(tensor).numpy() for tensor in tensors]

    plain, checkpointed = gradients(False), gradients(True)
    assert len(plain) == len(checkpointed) == 5 + 16 * 3 + 2
    for left, right in zip(plain, checkpointed, strict=True):
        # A key's bias moves every score of a query alike, so its gradient is zero but for rounding.
        np.testing.assert_allclose(left, right, rtol=0, atol=1e-4 * max(1e-3, np.abs(left).max()))


@pytest.mark.parametrize(
    ("policy", "dtype", "tolerance"),
    [
        ("mixed_float16", "float16", 0.02),
        ("mixed_bfloat16", "bfloat16", 0.15),
        ("float64", "float64", 1e-5),
    ],
)
@pytest.mark.parametrize("jit_compile", [False, True])
def test_precision_policies(
    config: BertConfig,
    batch: dict[str, np.ndarray],
    policy: str,
    dtype: str,
    tolerance: float,
    jit_compile: bool,
) -> None:
    reference, encoder = BertEncoder(config), BertEncoder(config, dtype=policy)
    reference.build()
    encoder.build()
    encoder.set_weights(reference.get_weights())
    tensors = {name: tf.constant(value) for name, value in batch.items()}
    outputs = tf.function(encoder.__call__, jit_compile=jit_compile)(tensors)
    assert keras.backend.standardize_dtype(outputs["sequence_output"].dtype) == dtype
    tokens = batch["input_mask"] == 1
    np.testing.assert_allclose(
        np.asarray(outputs["sequence_output"], np.float32)[tokens],
        reference(batch)["sequence_output"].numpy()[tokens],
        rtol=0,
        atol=tolerance,
    )


@pytest.mark.parametrize("policy", ["float32", "mixed_float16", "mixed_bfloat16"])
def test_a_row_of_padding_only_stays_finite(
    config: BertConfig, batch: dict[str, np.ndarray], policy: str
) -> None:
    batch = {**batch, "input_mask": batch["input_mask"] * np.array([[0], [1], [1], [1]], np.int32)}
    outputs = BertEncoder(config, dtype=policy)(batch)
    for tensor in (outputs["pooled_output"], *outputs["encoder_outputs"]):
        assert np.isfinite(np.asarray(tensor, np.float32)).all()


def test_an_empty_batch_gives_empty_outputs(config: BertConfig) -> None:
    encoder = BertEncoder(config)
    for call in (encoder, tf.function(encoder.__call__), tf.function(encoder.__call__, jit_compile=True)):
        outputs = call({name: tf.zeros((0, 16), tf.int32) for name in NAMES})
        assert outputs["pooled_output"].shape == (0, 24)
        assert outputs["sequence_output"].shape == (0, 16, 24)


@pytest.mark.parametrize("jit_compile", [False, True])
def test_a_functional_model_trains(
    config: BertConfig, batch: dict[str, np.ndarray], jit_compile: bool
) -> None:
    keras.utils.set_random_seed(0)
    inputs = symbolic()
    encoder = BertEncoder(config)
    model = keras.Model(inputs, keras.layers.Dense(2)(encoder(inputs)["pooled_output"]))
    model.compile(
        keras.optimizers.Adam(3e-3),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        jit_compile=jit_compile,
    )
    losses = model.fit(batch, np.array([0, 1, 0, 1]), epochs=25, verbose=0).history["loss"]
    assert losses[-1] < 0.2 * losses[0]


@pytest.mark.parametrize("trainable", [True, False])
def test_trainable(config: BertConfig, batch: dict[str, np.ndarray], trainable: bool) -> None:
    encoder = BertEncoder(config, trainable=trainable)
    inputs = symbolic()
    model = keras.Model(inputs, keras.layers.Dense(2)(encoder(inputs)["pooled_output"]))
    before = [variable.numpy() for variable in encoder.variables]
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    model.fit(batch, np.array([0, 1, 0, 1]), epochs=1, verbose=0)
    weights = [
        not np.array_equal(old, new)
        for old, new in zip(before, encoder.variables, strict=True)
        if "seed" not in new.path
    ]
    assert all(weights) if trainable else not any(weights)
    assert len(model.trainable_variables) == (2 + len(weights) if trainable else 2)


RELOAD = """
import tfbert_npu
import sys, keras, numpy as np
model = keras.models.load_model(sys.argv[1])
data = np.load(sys.argv[2])
inputs = {name: data[name] for name in data.files if not name.startswith("out")}
outputs = model.predict(inputs, verbose=0)
for index, output in enumerate(outputs):
    np.testing.assert_array_equal(output, data[f"out{index}"])
print(len(model.weights), model.get_layer("encoder").config.hidden_act)
"""


def test_keras_file_in_a_new_process(
    tmp_path: Path, config: BertConfig, batch: dict[str, np.ndarray]
) -> None:
    """Encoder and `.mlm` in one model share their weights, before and after."""
    inputs = symbolic("masked_lm_positions")
    encoder = BertEncoder(config.replace(hidden_act="relu"), mlm=True, name="encoder")
    pooled = encoder({name: inputs[name] for name in NAMES})["pooled_output"]
    model = keras.Model(inputs, [pooled, encoder.mlm(inputs)["mlm_logits"]])
    count = len(model.weights)
    assert count == len(encoder.mlm.weights) == len(encoder.weights) + len(encoder.mlm_head.weights)
    data = {**batch, "masked_lm_positions": np.array([[0, 5], [1, 1], [2, 0], [11, 3]], np.int32)}
    outputs = model.predict(data, verbose=0)
    model.save(tmp_path / "model.keras")
    np.savez(tmp_path / "data.npz", **data, **{f"out{index}": value for index, value in enumerate(outputs)})
    result = subprocess.run(
        [sys.executable, "-c", RELOAD, tmp_path / "model.keras", tmp_path / "data.npz"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.split() == [str(count), "relu"]


def test_config_round_trip(config: BertConfig) -> None:
    encoder = BertEncoder(
        config, add_pooler=False, mlm=True, causal=True, gradient_checkpointing=True, name="e"
    )
    again = BertEncoder.from_config(encoder.get_config())
    assert again.get_config() == encoder.get_config()
    assert again.config == config
    assert again.pooler is None


def test_mlm_without_a_head_says_so(config: BertConfig) -> None:
    with pytest.raises(AttributeError, match="has no masked language model head"):
        _ = BertEncoder(config).mlm


def test_mlm_gradients_reach_the_embedding_table(config: BertConfig, batch: dict[str, np.ndarray]) -> None:
    encoder = BertEncoder(config, mlm=True)
    inputs = {**batch, "masked_lm_positions": np.zeros((4, 2), np.int32)}
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(encoder.mlm(inputs)["mlm_logits"] ** 2)
    table = encoder.embeddings.word_embeddings.embeddings
    gradient = tf.convert_to_tensor(tape.gradient(loss, table.value)).numpy()
    # Every word is scored, so every row of the tied table is moved, also those of words not in the batch.
    assert (np.abs(gradient).max(axis=1) > 0).all()


def test_the_mlm_head_is_trained_with_mlm_alone(config: BertConfig, batch: dict[str, np.ndarray]) -> None:
    """Below a classifier every weight of the encoder has a gradient."""
    encoder = BertEncoder(config, mlm=True)
    inputs = symbolic("masked_lm_positions")
    outputs = encoder({name: inputs[name] for name in NAMES})
    classifier = keras.Model(
        {name: inputs[name] for name in NAMES}, keras.layers.Dense(2)(outputs["pooled_output"])
    )
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(classifier(batch) ** 2)
    variables = [variable.value for variable in classifier.trainable_variables]
    assert all(gradient is not None for gradient in tape.gradient(loss, variables))
    model = keras.Model(inputs, encoder.mlm(inputs)["mlm_logits"])
    head = {variable.path for variable in encoder.mlm_head.weights}
    assert head <= {variable.path for variable in model.trainable_variables}
    for value in (False, True):
        encoder.trainable = value
        assert bool(encoder.mlm.trainable_variables) is value
