"""What a head does about labels, and about checkpoints that hold more or less than it wants."""

import json
import warnings

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from tfbert_npu import BertConfig, BertEncoder
from tfbert_npu.errors import CheckpointError
from tfbert_npu.models.heads import (
    BertForMaskedLM,
    BertForMultipleChoice,
    BertForNextSentencePrediction,
    BertForPreTraining,
    BertForQuestionAnswering,
    BertForSequenceClassification,
    BertForTokenClassification,
    BertLMHeadModel,
)

CONFIG = BertConfig(
    vocab_size=31,
    hidden_size=12,
    num_hidden_layers=1,
    num_attention_heads=2,
    intermediate_size=20,
    max_position_embeddings=16,
)
DISTILBERT = CONFIG.replace(model_type="distilbert")
INPUTS = {
    "input_word_ids": np.array([[2, 5, 6, 3]], np.int32),
    "input_mask": np.ones((1, 4), np.int32),
    "input_type_ids": np.zeros((1, 4), np.int32),
}


@pytest.fixture
def encoder_checkpoint(tmp_path):
    BertEncoder(CONFIG).save_pretrained(tmp_path / "encoder")
    return tmp_path / "encoder"


def new_weights(caught):
    return [str(w.message) for w in caught if "new weights" in str(w.message)]


def test_labels_survive_the_files(tmp_path):
    model = BertForSequenceClassification(CONFIG, labels=["no", "yes", "perhaps"])
    model.save_pretrained(tmp_path)
    written = json.loads((tmp_path / "config.json").read_text())
    assert written["id2label"] == {"0": "no", "1": "yes", "2": "perhaps"}
    assert written["label2id"] == {"no": 0, "yes": 1, "perhaps": 2}
    again = BertForSequenceClassification.from_pretrained(tmp_path)
    assert again.config.id2label == ("no", "yes", "perhaps")
    np.testing.assert_allclose(again(INPUTS), model(INPUTS), atol=1e-6)


def test_one_warning_lists_the_new_weights(encoder_checkpoint):
    with pytest.warns(UserWarning, match="new weights") as caught:
        model = BertForPreTraining.from_pretrained(encoder_checkpoint)
    (message,) = new_weights(caught)
    assert "cls.seq_relationship.weight" in message
    assert "cls.predictions.transform.dense.weight" in message
    assert "pooler" not in message
    encoder = BertEncoder.from_pretrained(encoder_checkpoint)
    np.testing.assert_array_equal(
        np.asarray(model.encoder(INPUTS)["pooled_output"]), np.asarray(encoder(INPUTS)["pooled_output"])
    )


def test_a_missing_pooler_is_new_but_a_missing_layer_is_an_error(encoder_checkpoint):
    file = encoder_checkpoint / "model.safetensors"
    tensors = load_file(file)
    save_file({name: t for name, t in tensors.items() if "pooler" not in name}, file)
    with pytest.warns(UserWarning, match=r"pooler\.dense\.bias"):
        BertForSequenceClassification.from_pretrained(encoder_checkpoint)
    save_file({name: t for name, t in tensors.items() if "layer.0.output.dense.bias" not in name}, file)
    with pytest.raises(CheckpointError, match=r"missing: encoder\.layer\.0\.output\.dense\.bias"):
        BertForSequenceClassification.from_pretrained(encoder_checkpoint)


def test_another_number_of_labels_gets_a_new_classifier(tmp_path):
    BertForSequenceClassification(CONFIG, num_labels=3).save_pretrained(tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        same = BertForSequenceClassification.from_pretrained(tmp_path, labels=["a", "b", "c"])
    assert same.config.id2label == ("a", "b", "c")
    with pytest.warns(UserWarning, match=r"classifier\.bias, classifier\.weight"):
        more = BertForSequenceClassification.from_pretrained(tmp_path, num_labels=4)
    assert more(INPUTS).shape == (1, 4)


def test_other_label_names_get_a_new_classifier(tmp_path):
    BertForSequenceClassification(CONFIG, labels=["a", "b"]).save_pretrained(tmp_path)
    with pytest.warns(UserWarning, match="new weights"):
        BertForSequenceClassification.from_pretrained(tmp_path, labels=["b", "a"])


def test_a_head_of_another_task_is_left_aside(tmp_path):
    BertForQuestionAnswering(CONFIG).save_pretrained(tmp_path)
    with pytest.warns(UserWarning, match=r"classifier\.bias, classifier\.weight; ") as caught:
        BertForTokenClassification.from_pretrained(tmp_path, num_labels=3)
    assert len(new_weights(caught)) == 1


def test_labels_that_contradict():
    with pytest.raises(ValueError, match="num_labels is 3 but labels names 2"):
        BertForSequenceClassification(CONFIG, num_labels=3, labels=["a", "b"])
    with pytest.raises(ValueError, match="a more than once"):
        BertForSequenceClassification(CONFIG, labels=["a", "a"])
    with pytest.raises(ValueError, match="at least 1"):
        BertForSequenceClassification(CONFIG, num_labels=0)
    with pytest.raises(ValueError, match="problem_type must be one of"):
        BertForSequenceClassification(CONFIG, problem_type="ranking")


@pytest.mark.parametrize("head", [BertForPreTraining, BertLMHeadModel, BertForNextSentencePrediction])
def test_distilbert_lacks_some_heads(head):
    with pytest.raises(ValueError, match=f"no {head.__name__} for DistilBERT"):
        head(DISTILBERT)


def test_distilberts_dropout_before_answers_is_the_configurations():
    still = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}

    def changes(rate):
        model = BertForQuestionAnswering(DISTILBERT.replace(qa_dropout=rate, **still))
        logits = (model(INPUTS, training=training)["start_logits"] for training in (True, False))
        return not np.allclose(*logits)

    assert changes(0.5)
    assert not changes(0.0)


def test_a_head_says_what_it_needs_of_an_encoder():
    with pytest.raises(ValueError, match="mlm=True"):
        BertForMaskedLM(BertEncoder(CONFIG))
    with pytest.raises(ValueError, match="causal=True"):
        BertLMHeadModel(BertEncoder(CONFIG, mlm=True))
    with pytest.raises(ValueError, match="causal=False"):
        BertForSequenceClassification(BertEncoder(CONFIG, causal=True))


def test_a_head_trains_the_encoder_it_was_given():
    encoder = BertEncoder(CONFIG)
    model = BertForSequenceClassification(encoder, num_labels=3)
    before = np.asarray(encoder(INPUTS)["pooled_output"])
    model.compile("sgd")
    model.fit(INPUTS, np.array([1]), verbose=0)
    assert model.encoder is encoder
    assert not np.allclose(before, np.asarray(encoder(INPUTS)["pooled_output"]))


def test_multiple_choice_wants_rank_three():
    model = BertForMultipleChoice(CONFIG)
    with pytest.raises(ValueError, match=r"rank 3, \[batch, choices, length\], got shape \(1, 4\)"):
        model(INPUTS)


def test_a_causal_model_does_not_look_ahead():
    model = BertLMHeadModel(CONFIG)
    other = {**INPUTS, "input_word_ids": np.array([[2, 5, 6, 9]], np.int32)}
    before, after = np.asarray(model(INPUTS)), np.asarray(model(other))
    np.testing.assert_allclose(before[:, :3], after[:, :3], atol=1e-6)
    assert not np.allclose(before[:, 3], after[:, 3])


def test_mixed_bfloat16_keeps_variables_in_float32():
    model = BertForSequenceClassification(CONFIG, num_labels=3, dtype="mixed_bfloat16")
    assert model(INPUTS).dtype == "bfloat16"
    assert {variable.dtype for variable in model.trainable_variables} == {"float32"}
    model.compile("adam")
    model.fit(INPUTS, np.array([1]), verbose=0)


@pytest.mark.parametrize("texts", [["a text", "another"], "a text"])
def test_fit_and_predict_say_what_to_do_with_texts(texts) -> None:
    model = BertForSequenceClassification(CONFIG, labels=["x", "y"])
    model.compile()
    for method in (model.fit, model.predict):
        with pytest.raises(ValueError, match="take word ids, not texts; pass BertTokenizer's"):
            method(texts)
