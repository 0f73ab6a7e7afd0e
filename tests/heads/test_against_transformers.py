"""Every head against PyTorch transformers: logits, losses and gradients, from their files and back."""

import json

import keras
import numpy as np
import pytest

from tfbert_npu.models import heads

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

SIZES = {
    "vocab_size": 67,
    "hidden_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "intermediate_size": 40,
    "max_position_embeddings": 32,
}
DISTILBERT_SIZES = {
    "vocab_size": 67,
    "dim": 24,
    "n_layers": 2,
    "n_heads": 3,
    "hidden_dim": 40,
    "max_position_embeddings": 32,
}
B, S, C, LABELS = 3, 11, 4, 5

BERT = [
    "BertForPreTraining",
    "BertForMaskedLM",
    "BertLMHeadModel",
    "BertForNextSentencePrediction",
    "BertForSequenceClassification",
    "BertForSequenceClassification:regression",
    "BertForSequenceClassification:multi_label_classification",
    "BertForMultipleChoice",
    "BertForTokenClassification",
    "BertForQuestionAnswering",
]
DISTILBERT = [
    "DistilBertForMaskedLM",
    "DistilBertForSequenceClassification",
    "DistilBertForSequenceClassification:regression",
    "DistilBertForSequenceClassification:multi_label_classification",
    "DistilBertForMultipleChoice",
    "DistilBertForTokenClassification",
    "DistilBertForQuestionAnswering",
]

# One of each form of output and of labels.
SOME = [
    "BertForPreTraining",
    "BertLMHeadModel",
    "BertForMultipleChoice",
    "BertForQuestionAnswering",
    "BertForSequenceClassification:regression",
    "DistilBertForSequenceClassification:multi_label_classification",
    "DistilBertForTokenClassification",
]


def theirs(case, **extra):
    """A PyTorch model with random weights, LayerNorms and biases included."""
    name, _, problem = case.partition(":")
    distilbert = name.startswith("Distil")
    labels = 1 if problem == "regression" else LABELS
    if "QuestionAnswering" in name:
        labels = 2
    kwargs = dict(extra, num_labels=labels)
    if problem:
        kwargs["problem_type"] = problem
    if name == "BertLMHeadModel":
        kwargs["is_decoder"] = True
    if distilbert:
        config = transformers.DistilBertConfig(**DISTILBERT_SIZES, **kwargs)
    else:
        config = transformers.BertConfig(**SIZES, **kwargs)
    torch.manual_seed(7)
    model = getattr(transformers, name)(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.2)
    return model.eval()


def our_class(case):
    return getattr(heads, case.partition(":")[0].replace("DistilBert", "Bert"))


def batch(case, seed=0):
    """Ids with padding of several lengths, and pairs."""
    rng = np.random.default_rng(seed)
    shape = (B, C, S) if "MultipleChoice" in case else (B, S)
    lengths = rng.integers(4, S + 1, shape[:-1])
    lengths.flat[0] = S
    mask = (np.arange(S) < lengths[..., None]).astype(np.int32)
    ids = rng.integers(1, 67, shape).astype(np.int32) * mask
    types = ((np.arange(S) >= lengths[..., None] // 2) * mask).astype(np.int32)
    return {"input_word_ids": ids, "input_mask": mask, "input_type_ids": types}


def labels_of(case, inputs, seed=1):
    """Labels in our form and as arguments of their forward."""
    rng = np.random.default_rng(seed)
    name, _, problem = case.partition(":")
    mask = inputs["input_mask"]

    def words(low, high):
        labels = rng.integers(low, high, (B, S))
        return np.where((mask > 0) & (rng.random((B, S)) < 0.6), labels, -100)

    if "PreTraining" in name:
        mlm, nsp = words(0, 67), rng.integers(0, 2, B)
        return {"mlm_logits": mlm, "nsp_logits": nsp}, {"labels": mlm, "next_sentence_label": nsp}
    if "QuestionAnswering" in name:
        start, end = rng.integers(0, 4, B), rng.integers(0, 4, B)
        return (
            {"start_logits": start, "end_logits": end},
            {"start_positions": start, "end_positions": end},
        )
    if "LM" in name:
        labels = words(0, 67)
    elif "TokenClassification" in name:
        labels = words(0, LABELS)
    elif "NextSentence" in name:
        labels = rng.integers(0, 2, B)
    elif "MultipleChoice" in name:
        labels = rng.integers(0, C, B)
    elif problem == "regression":
        labels = rng.normal(size=B).astype(np.float32)
    elif problem:
        labels = rng.integers(0, 2, (B, LABELS)).astype(np.float32)
    else:
        labels = rng.integers(0, LABELS, B)
    return labels, {"labels": labels}


def run_theirs(model, case, inputs, **labels):
    names = {
        "input_word_ids": "input_ids",
        "input_mask": "attention_mask",
        "input_type_ids": "token_type_ids",
    }
    if case.startswith("Distil"):
        del names["input_type_ids"]
    tensors = {theirs: torch.tensor(inputs[ours], dtype=torch.long) for ours, theirs in names.items()}
    return model(**tensors, **{name: torch.tensor(value) for name, value in labels.items()})


def logits_of(case, outputs):
    if "PreTraining" in case:
        return {"mlm_logits": outputs.prediction_logits, "nsp_logits": outputs.seq_relationship_logits}
    if "QuestionAnswering" in case:
        return {"start_logits": outputs.start_logits, "end_logits": outputs.end_logits}
    return {"logits": outputs.logits}


def as_dict(outputs):
    return outputs if isinstance(outputs, dict) else {"logits": outputs}


def total_loss(model, labels, outputs):
    """The model's default loss as `compile` and `fit` add it up."""
    losses, weights = model.default_loss(), model.default_loss_weights()
    if not isinstance(losses, dict):
        return losses(labels, outputs)
    return sum(losses[k](labels[k], outputs[k]) * (weights or {}).get(k, 1.0) for k in losses)


def assert_same_logits(case, model, ours, tolerance=1e-4):
    inputs = batch(case)
    with torch.no_grad():
        expected = logits_of(case, run_theirs(model, case, inputs))
    found = as_dict(ours(inputs))
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_allclose(np.asarray(found[name]), value.numpy(), atol=tolerance, err_msg=name)


@pytest.mark.parametrize("case", BERT + DISTILBERT)
def test_logits_loss_and_gradients(case, tmp_path, recwarn):
    import tensorflow as tf

    model = theirs(case)
    model.save_pretrained(tmp_path)
    ours = our_class(case).from_pretrained(tmp_path)
    assert [str(w.message) for w in recwarn if "new weights" in str(w.message)] == []
    assert_same_logits(case, model, ours)

    inputs = batch(case)
    our_labels, their_labels = labels_of(case, inputs)
    expected = run_theirs(model, case, inputs, **their_labels).loss
    expected.backward()
    with tf.GradientTape() as tape:
        loss = total_loss(ours, our_labels, ours(inputs))
    np.testing.assert_allclose(float(loss), expected.item(), rtol=1e-5)

    gradients = tape.gradient(loss, [v.value for v in ours.trainable_variables])
    from tfbert_npu.checkpoints.names import head_rows
    from tfbert_npu.checkpoints.variables import rows_of, variable_at

    parameters = dict(model.named_parameters())
    found = {
        v.path: tf.convert_to_tensor(g)
        for v, g in zip(ours.trainable_variables, gradients, strict=True)
        if g is not None
    }
    compared = 0
    placed = [(row, ours.encoder) for row in rows_of(ours.encoder)]
    placed += [(row, ours) for part in ours.parts for row in head_rows(part)]
    for row, owner in placed:
        name = row.distilbert if case.startswith("Distil") else row.name
        matches = [p for p in parameters if p == name or p.endswith("bert." + name)]
        gradient = found.get(variable_at(owner, row.attribute).path)
        if len(matches) != 1 or parameters[matches[0]].grad is None:
            # the pooler of a head that does not look at it
            assert gradient is None or float(tf.norm(gradient)) == 0, name
            continue
        want = parameters[matches[0]].grad.numpy()
        want = want.T if row.is_kernel else want
        if row.name.endswith("word_embeddings.weight"):
            # PyTorch's padding_idx holds back the gradient of [PAD]; google-research/bert does not.
            gradient, want = gradient[1:], want[1:]
        # Relative to the largest gradient. That of a key's bias, or of the bias that all choices share, is zero
        # but for rounding, some 1e-7.
        scale = max(np.abs(want).max(), 1e-3)
        np.testing.assert_allclose(gradient.numpy(), want, atol=1e-3 * scale, err_msg=name)
        compared += 1
    assert compared >= 2 * 16 + 4


@pytest.mark.parametrize("case", BERT + DISTILBERT)
def test_saved_heads_load_in_transformers(case, tmp_path):
    theirs(case).save_pretrained(tmp_path / "theirs")
    ours = our_class(case).from_pretrained(tmp_path / "theirs")
    for variable in ours.trainable_variables:
        variable.assign(variable + 0.01)
    ours.save_pretrained(tmp_path / "ours")
    config = json.loads((tmp_path / "ours" / "config.json").read_text())
    name = case.partition(":")[0]
    assert config["architectures"] == [name]
    back, report = getattr(transformers, name).from_pretrained(tmp_path / "ours", output_loading_info=True)
    assert not report["missing_keys"], report
    assert not report["mismatched_keys"], report
    assert_same_logits(case, back.eval(), ours)


@pytest.mark.parametrize("case", ["BertForMaskedLM", "BertForPreTraining", "DistilBertForMaskedLM"])
def test_logits_at_positions_are_those_of_the_whole(case, tmp_path):
    theirs(case).save_pretrained(tmp_path)
    ours = our_class(case).from_pretrained(tmp_path)
    inputs = batch(case)
    positions = np.random.default_rng(3).integers(0, S, (B, 4)).astype(np.int32)

    def mlm(outputs):
        return np.asarray(outputs["mlm_logits"] if isinstance(outputs, dict) else outputs)

    whole = mlm(ours(inputs))
    some = mlm(ours({**inputs, "masked_lm_positions": positions}))
    np.testing.assert_allclose(some, np.take_along_axis(whole, positions[..., None], 1), atol=1e-5)


@pytest.mark.parametrize("case", SOME)
def test_keras_file_keeps_logits_and_labels(case, tmp_path):
    theirs(case, id2label=None).save_pretrained(tmp_path)
    ours = our_class(case).from_pretrained(tmp_path)
    ours.compile("sgd")
    inputs = batch(case)
    before = as_dict(ours.predict(inputs, verbose=0))
    ours.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    assert type(again) is type(ours)
    assert again.config == ours.config
    assert again.evaluate(inputs, labels_of(case, inputs)[0], verbose=0) == pytest.approx(
        ours.evaluate(inputs, labels_of(case, inputs)[0], verbose=0), rel=1e-5
    )
    for name, value in as_dict(again.predict(inputs, verbose=0)).items():
        np.testing.assert_allclose(value, before[name], atol=1e-6)


@pytest.mark.parametrize("case", SOME)
def test_fit_lowers_the_loss(case, tmp_path):
    keras.utils.set_random_seed(0)  # the order of the batch and the dropout
    theirs(case).save_pretrained(tmp_path)
    ours = our_class(case).from_pretrained(tmp_path)
    ours.compile(keras.optimizers.Adam(3e-3))
    inputs = batch(case)
    labels, _ = labels_of(case, inputs)
    history = ours.fit(inputs, labels, epochs=30, verbose=0, batch_size=B).history["loss"]
    assert history[-1] < 0.7 * history[0]
