"""BertConfig against the files of three publishers, and against files that nobody should publish."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tfbert_npu import BertConfig
from tfbert_npu.errors import CheckpointError

SIZES = {
    "vocab_size": 99,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 37,
    "max_position_embeddings": 50,
}


def write(path: Path, values: object) -> Path:
    path.write_text(values if isinstance(values, str) else json.dumps(values), encoding="utf-8")
    return path


def test_gelu_means_what_its_publisher_means(tmp_path: Path) -> None:
    huggingface = write(tmp_path / "config.json", {**SIZES, "hidden_act": "gelu"})
    google = write(tmp_path / "bert_config.json", {**SIZES, "hidden_act": "gelu"})
    assert BertConfig.from_json(huggingface).hidden_act == "gelu"
    assert BertConfig.from_json(google).hidden_act == "gelu_tanh"
    assert BertConfig.from_json(huggingface, source="google").hidden_act == "gelu_tanh"
    assert BertConfig.from_json(google, source="huggingface").hidden_act == "gelu"


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [("gelu_new", "gelu_tanh"), ("gelu_pytorch_tanh", "gelu_tanh"), ("swish", "silu"), ("relu", "relu")],
)
def test_huggingface_activations(tmp_path: Path, theirs: str, ours: str) -> None:
    assert (
        BertConfig.from_json(write(tmp_path / "config.json", {**SIZES, "hidden_act": theirs})).hidden_act
        == ours
    )


def test_every_size_is_read(tmp_path: Path) -> None:
    values = {
        **SIZES,
        "type_vocab_size": 3,
        "layer_norm_eps": 1e-5,
        "initializer_range": 0.05,
        "hidden_dropout_prob": 0.2,
        "attention_probs_dropout_prob": 0.3,
        "pad_token_id": None,
        "classifier_dropout": 0.4,
        "id2label": {"1": "b", "0": "a", "2": "c"},
        "problem_type": "multi_label_classification",
        "torch_dtype": "float32",
    }
    config = BertConfig.from_json(write(tmp_path / "config.json", values))
    for name in SIZES:
        assert getattr(config, name) == SIZES[name]
    assert (config.type_vocab_size, config.layer_norm_eps, config.initializer_range) == (3, 1e-5, 0.05)
    assert (config.hidden_dropout_prob, config.attention_probs_dropout_prob) == (0.2, 0.3)
    assert (config.classifier_dropout, config.problem_type) == (0.4, "multi_label_classification")
    assert (config.id2label, config.num_labels, config.label2id) == (
        ("a", "b", "c"),
        3,
        {"a": 0, "b": 1, "c": 2},
    )
    assert config.pad_token_id == 0


def test_distilbert_names(tmp_path: Path) -> None:
    values = {
        "model_type": "distilbert",
        "vocab_size": 99,
        "dim": 32,
        "hidden_dim": 37,
        "n_layers": 2,
        "n_heads": 4,
        "activation": "gelu",
        "dropout": 0.15,
        "attention_dropout": 0.25,
        "max_position_embeddings": 50,
    }
    config = BertConfig.from_json(write(tmp_path / "config.json", values))
    for name in SIZES:
        assert getattr(config, name) == SIZES[name]
    assert (config.hidden_dropout_prob, config.attention_probs_dropout_prob) == (0.15, 0.25)
    assert (config.type_vocab_size, config.classifier_dropout, config.qa_dropout) == (0, 0.2, 0.1)
    rates = {"seq_classif_dropout": 0.35, "qa_dropout": 0.0}
    config = BertConfig.from_json(write(tmp_path / "config.json", {**values, **rates}))
    assert (config.classifier_dropout, config.qa_dropout) == (0.35, 0.0)
    written = config.to_huggingface()
    assert {name: written[name] for name in rates} == rates
    assert "classifier_dropout" not in written
    assert "qa_dropout" not in BertConfig(**SIZES).to_huggingface()


@pytest.mark.parametrize("model_type", ["bert", "distilbert"])
def test_transformers_reads_what_we_write(tmp_path: Path, model_type: str) -> None:
    transformers = pytest.importorskip("transformers")
    config = BertConfig(
        model_type=model_type,
        hidden_act="gelu_tanh",
        id2label=("no", "yes", "perhaps"),
        classifier_dropout=0.3,
        **SIZES,
    )
    config.to_json(tmp_path / "config.json")
    theirs = transformers.AutoConfig.from_pretrained(tmp_path)
    assert theirs.model_type == model_type
    for name in ("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads"):
        assert getattr(theirs, name) == SIZES[name]
    assert theirs.id2label == {0: "no", 1: "yes", 2: "perhaps"}
    assert BertConfig.from_json(tmp_path) == config


def test_directory_is_searched(tmp_path: Path) -> None:
    write(tmp_path / "bert_config.json", SIZES)
    assert BertConfig.from_json(tmp_path).hidden_act == "gelu_tanh"
    write(tmp_path / "config.json", SIZES)
    assert BertConfig.from_json(tmp_path).hidden_act == "gelu"


def test_round_trip_through_a_dict() -> None:
    config = BertConfig(id2label=("a", "b"), **SIZES)
    assert BertConfig(**json.loads(json.dumps(config.to_dict()))) == config
    assert hash(config) == hash(config.replace())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"hidden_size": 30}, "hidden_size 30 is not divisible by num_attention_heads 4"),
        ({"hidden_size": 0}, "hidden_size must be a whole number from 1"),
        ({"vocab_size": "99"}, "vocab_size must be a whole number"),
        ({"num_hidden_layers": 1_000_000}, "num_hidden_layers must be a whole number from 1 to 1000"),
        ({"hidden_act": "gleu"}, "hidden_act 'gleu' is unknown; known are gelu,"),
        ({"hidden_act": None}, "hidden_act None is unknown"),
        ({"hidden_dropout_prob": 1.5}, r"hidden_dropout_prob must be a rate in \[0, 1\)"),
        ({"hidden_dropout_prob": None}, "hidden_dropout_prob must be a rate"),
        ({"layer_norm_eps": 0}, "layer_norm_eps must be a number"),
        ({"model_type": "roberta"}, "model_type 'roberta' is not supported; supported are bert, distilbert"),
        ({"position_embedding_type": "relative_key"}, "only 'absolute' is"),
        ({"id2label": {"0": "a", "2": "b"}}, "must number its labels 0 to 1"),
        ({"id2label": {"0": "a", "00": "b"}}, "must number its labels"),
        ({"id2label": {"0": "a", "1": "b", "2": "a"}}, "'a' to more than one label"),
        ({"num_labels": 1_000_000_000}, "from 1 to 100000, got 1000000000"),
        ({"num_labels": "3"}, "num_labels must be a whole number"),
        ({"num_labels": -1}, "num_labels must be a whole number"),
        ({"pad_token_id": "x"}, "pad_token_id must be a whole number"),
        ({"pad_token_id": 10**9}, "pad_token_id must be in the vocabulary"),
        ({"id2label": ["a", "b"]}, "id2label must map class indices to names"),
    ],
)
def test_impossible_models(tmp_path: Path, change: dict[str, object], message: str) -> None:
    path = write(tmp_path / "config.json", {**SIZES, **change})
    with pytest.raises(CheckpointError, match=message) as caught:
        BertConfig.from_json(path)
    assert "config.json" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", ["", "{", "[1, 2]", "\ufeff\ufeff{}", "[" * 100_000])
def test_not_a_configuration(tmp_path: Path, content: str) -> None:
    with pytest.raises(CheckpointError, match=r"config\.json"):
        BertConfig.from_json(write(tmp_path / "config.json", content))


def test_not_text(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_bytes(b"\xff\xfe\x00\x01")
    with pytest.raises(CheckpointError, match="is not JSON"):
        BertConfig.from_json(tmp_path)


def test_missing_files(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"holds neither config\.json nor bert_config\.json"):
        BertConfig.from_json(tmp_path)
    with pytest.raises(FileNotFoundError, match="does not exist"):
        BertConfig.from_json(tmp_path / "absent" / "config.json")
