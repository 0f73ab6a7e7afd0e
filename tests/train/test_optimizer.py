"""The optimizer against PyTorch's AdamW, the schedule against transformers'."""

import keras
import numpy as np
import pytest
import tensorflow as tf
import tiny_bert

from tfbert_npu import BertForSequenceClassification
from tfbert_npu.train.loop import compile_for
from tfbert_npu.train.optimizer import BertAdamW, decays, layer_factors
from tfbert_npu.train.options import TrainOptions
from tfbert_npu.train.schedule import LinearWarmup


def head(**changes):
    model = BertForSequenceClassification(tiny_bert.config(**changes), num_labels=3)
    model.build()
    return model


@pytest.mark.parametrize(("warmup", "total"), [(0, 10), (3, 10), (10, 10), (1, 1)])
def test_schedule_is_transformers(warmup, total):
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.5)
    theirs = transformers.get_linear_schedule_with_warmup(optimizer, warmup, total)
    ours = LinearWarmup(0.5, warmup, total)
    rates = []
    for _ in range(total + 1):
        rates.append(theirs.get_last_lr()[0])
        optimizer.step()
        theirs.step()
    if warmup:
        # transformers spends its first step at rate 0; ours is one ahead while it rises.
        assert [float(ours(i)) for i in range(warmup - 1)] == pytest.approx(rates[1:warmup])
        assert float(ours(warmup - 1)) == 0.5
    assert [float(ours(i)) for i in range(warmup, total + 1)] == pytest.approx(rates[warmup:])


def test_schedule_refuses_what_cannot_be():
    with pytest.raises(ValueError, match="10 steps cannot have 11 of warm-up"):
        LinearWarmup(1.0, 11, 10)


def test_updates_are_pytorchs_adamw():
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(0)
    start = {"kernel": rng.normal(size=(3, 4)), "bias": rng.normal(size=4), "gamma": rng.normal(size=4)}
    gradients = [{name: rng.normal(size=value.shape) for name, value in start.items()} for _ in range(5)]

    theirs = {name: torch.nn.Parameter(torch.tensor(value)) for name, value in start.items()}
    groups = [
        {"params": [theirs["kernel"]], "weight_decay": 0.1},
        {"params": [theirs["bias"], theirs["gamma"]], "weight_decay": 0.0},
    ]
    # Keras adds epsilon before the bias correction of the second moment, PyTorch after: both vanish at 1e-12.
    torch_optimizer = torch.optim.AdamW(groups, lr=0.01, eps=1e-12)
    for step in gradients:
        torch_optimizer.zero_grad()
        for name, parameter in theirs.items():
            parameter.grad = torch.tensor(step[name])
        torch.nn.utils.clip_grad_norm_(theirs.values(), 1.0)
        torch_optimizer.step()

    ours = {name: keras.Variable(value, dtype="float64", name=name) for name, value in start.items()}
    optimizer = BertAdamW(0.01, weight_decay=0.1, epsilon=1e-12, global_clipnorm=1.0)
    for step in gradients:
        optimizer.apply_gradients([(keras.ops.convert_to_tensor(step[n]), v) for n, v in ours.items()])
    for name, variable in ours.items():
        np.testing.assert_allclose(
            np.asarray(variable.value), theirs[name].detach().numpy(), rtol=2e-6, err_msg=name
        )


@pytest.mark.parametrize("jit_compile", [False, True])
@pytest.mark.parametrize("sparse", [False, True])
def test_updates_are_keras_adams(sparse, jit_compile):
    """TensorFlow's kernel and Keras' operations; an embedding's gradient lists a row once for each use."""
    start = np.random.default_rng(1).normal(size=(5, 3))
    one, other = (keras.Variable(start, dtype="float32", name="kernel") for _ in range(2))
    ours = BertAdamW(0.01, weight_decay=0, epsilon=1e-6)
    keras_adam = keras.optimizers.Adam(0.01, epsilon=1e-6)
    ours.build([one])
    keras_adam.build([other])

    @tf.function(jit_compile=jit_compile)
    def step(rows):
        gradient = tf.IndexedSlices(rows, tf.constant([1, 3, 1]), tf.constant([5, 3]))
        keras_adam.apply([tf.convert_to_tensor(gradient)])
        ours.apply([gradient if sparse else tf.convert_to_tensor(gradient)])

    draws = np.random.default_rng(2)
    for _ in range(5):
        step(tf.constant(draws.normal(size=(3, 3)), tf.float32))
    np.testing.assert_allclose(np.asarray(one), np.asarray(other), rtol=1e-5, atol=1e-6)
    assert np.abs(np.asarray(one) - start).max() > 0.01


def test_biases_and_layer_norms_do_not_decay():
    model = head()
    names = {v.path.rsplit("/", 1)[-1] for v in model.trainable_variables if not decays(v)}
    assert names == {"bias", "gamma", "beta"}
    assert {v.path.rsplit("/", 1)[-1] for v in model.trainable_variables if decays(v)} == {
        "kernel",
        "embeddings",
    }


def test_layer_factors_fall_downwards():
    model = head(num_hidden_layers=3)
    factors = layer_factors(model, 0.5)
    encoder = model.encoder
    assert factors[encoder.embeddings.word_embeddings.embeddings.path] == 0.5**4
    assert factors[encoder.layers[0].intermediate.kernel.path] == 0.5**3
    assert factors[encoder.layers[2].output_norm.gamma.path] == 0.5
    assert encoder.pooler.kernel.path not in factors
    assert model.classifier.kernel.path not in factors
    with pytest.raises(ValueError, match=r"layer_decay must be in \(0, 1\]"):
        layer_factors(model, 0)


def test_a_factor_scales_a_variables_steps():
    left, right = (keras.Variable(np.ones((2, 2)), name="kernel", dtype="float32") for _ in range(2))
    gradient = keras.ops.convert_to_tensor(np.full((2, 2), 3.0, np.float32))
    plain = BertAdamW(0.1, weight_decay=0.5)
    plain.apply_gradients([(gradient, left)])
    halved = BertAdamW(0.1, weight_decay=0.5, factors={right.path: 0.5})
    halved.apply_gradients([(gradient, right)])
    np.testing.assert_allclose(1 - np.asarray(right), (1 - np.asarray(left)) / 2, rtol=1e-5)


def test_accumulated_batches_are_one_large_batch():
    rng = np.random.default_rng(0)
    inputs = {
        "input_word_ids": rng.integers(5, 60, (8, 6)).astype(np.int32),
        "input_mask": np.ones((8, 6), np.int32),
        "input_type_ids": np.zeros((8, 6), np.int32),
    }
    labels = rng.integers(0, 3, 8)
    no_dropout = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    one, two = head(**no_dropout), head(**no_dropout)
    for a, b in zip(one.variables, two.variables, strict=True):
        b.assign(a)
    compile_for(one, TrainOptions(epochs=3, warmup=0.5, learning_rate=1e-2), 1)
    compile_for(two, TrainOptions(epochs=3, warmup=0.5, learning_rate=1e-2, accumulate=2), 2)
    one.fit(inputs, labels, batch_size=8, epochs=3, shuffle=False, verbose=0)
    two.fit(inputs, labels, batch_size=4, epochs=3, shuffle=False, verbose=0)
    for a, b in zip(one.trainable_variables, two.trainable_variables, strict=True):
        # The first Adam steps are as large for a gradient of rounding errors (a key's bias) as for any.
        if not a.path.endswith("key/bias"):
            np.testing.assert_allclose(np.asarray(a), np.asarray(b), atol=3e-4, err_msg=a.path)


def test_options_name_what_is_wrong():
    with pytest.raises(ValueError, match="precision must be one of"):
        TrainOptions(precision="float16")
    for bad in ({"epochs": 0}, {"warmup": 2}, {"clip_norm": 0}, {"learning_rate": 0}, {"patience": 0}):
        with pytest.raises(ValueError, match=next(iter(bad))):
            TrainOptions(**bad)
