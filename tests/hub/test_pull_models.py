"""Whole models: from transformers, TF1 and TF-Hub, DistilBERT included; and how few files travel for them."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from fakehub import FakeHub

from tests.runtime.artifacts import write_foreign
from tfbert_npu import (
    BertForMaskedLM,
    BertForPreTraining,
    BertForSequenceClassification,
    export_saved_model,
    pull_from_hub,
)
from tfbert_npu.errors import ArtifactError, CheckpointError

transformers = pytest.importorskip("transformers")
torch = pytest.importorskip("torch")

SIZES = {
    "bert": {
        "hidden_size": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 24,
        "initializer_range": 0.3,
    },
    "distilbert": {"dim": 16, "n_layers": 2, "n_heads": 2, "hidden_dim": 24, "initializer_range": 0.3},
}
CLASSES = [
    "BertForPreTraining",
    "BertForMaskedLM",
    "BertForNextSentencePrediction",
    "BertForSequenceClassification",
    "BertForTokenClassification",
    "BertForQuestionAnswering",
    "DistilBertForMaskedLM",
    "DistilBertForSequenceClassification",
    "DistilBertForTokenClassification",
    "DistilBertForQuestionAnswering",
]


def saved(architecture: str, directory: Path) -> Path:
    model_type = "distilbert" if architecture.startswith("Distil") else "bert"
    torch.manual_seed(0)
    labels = 2 if architecture.endswith("QuestionAnswering") else 3
    config = transformers.AutoConfig.for_model(
        model_type, vocab_size=40, max_position_embeddings=32, num_labels=labels, **SIZES[model_type]
    )
    getattr(transformers, architecture)(config).save_pretrained(directory)
    return directory


def batch() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    mask = np.ones((2, 9), np.int32)
    mask[1, 6:] = 0
    ids = rng.integers(5, 40, (2, 9)).astype(np.int32)
    return {
        "input_word_ids": ids,
        "input_mask": mask,
        "input_type_ids": rng.integers(0, 2, (2, 9)).astype("i4"),
    }


def flattened(outputs) -> list[np.ndarray]:
    values = outputs.values() if isinstance(outputs, dict) else [outputs]
    return [np.asarray(value) for value in values]


@pytest.mark.parametrize("architecture", CLASSES)
def test_the_class_that_the_repository_names(architecture: str, tmp_path: Path) -> None:
    directory = saved(architecture, tmp_path / "model")
    model = pull_from_hub(directory, component="model")
    assert type(model).__name__ == architecture.removeprefix("Distil")
    theirs = getattr(transformers, architecture).from_pretrained(directory).eval()
    arrays = batch()
    inputs = {
        "input_ids": torch.tensor(arrays["input_word_ids"].astype("i8")),
        "attention_mask": torch.tensor(arrays["input_mask"].astype("i8")),
    }
    if architecture.startswith("Bert"):
        inputs["token_type_ids"] = torch.tensor(arrays["input_type_ids"].astype("i8"))
    with torch.no_grad():
        expected = theirs(**inputs)
    ours = flattened(model(arrays))
    assert len(ours) == len(expected)
    for one, other in zip(ours, expected.values(), strict=True):
        np.testing.assert_allclose(one, other.numpy(), atol=1e-4)


def test_one_of_five_formats_travels(hub: FakeHub, tmp_path: Path) -> None:
    directory = saved("BertForSequenceClassification", tmp_path / "model")
    size = (directory / "model.safetensors").stat().st_size
    for name in (
        "pytorch_model.bin",
        "tf_model.h5",
        "flax_model.msgpack",
        "model.onnx",
        "model.fp16.safetensors",
    ):
        (directory / name).write_bytes(b"x" * 500_000)
    hub.add("owner/five").commit_directory(directory)
    for pull in (
        lambda: pull_from_hub("owner/five", component="model"),
        lambda: pull_from_hub("owner/five"),
        lambda: BertForSequenceClassification.from_pretrained("owner/five"),
    ):
        pull()
        assert hub.downloaded() == ["config.json", "model.safetensors"]
    assert hub.sent_bytes(".safetensors") == size


def test_google_with_its_pretraining_heads(shared: Path) -> None:
    toy = shared / "data/weights/tf1_keras_bert_toy"
    model = pull_from_hub(toy, component="model")
    assert isinstance(model, BertForPreTraining)
    golden = np.load(shared / "data/golden/tf1_keras_bert_toy_dev/kb.npz")
    outputs = model(
        {
            "input_word_ids": golden["1.input_ids"][None].astype(np.int32),
            "input_mask": golden["1.attention_mask"][None].astype(np.int32),
            "input_type_ids": golden["1.token_type_ids"][None].astype(np.int32),
        }
    )
    np.testing.assert_allclose(outputs["nsp_logits"][0], golden["1.nsp"], atol=1e-5)
    np.testing.assert_allclose(outputs["mlm_logits"][0], golden["1.mlm"], atol=1e-5)


def test_google_as_run_classifier_leaves_it(shared: Path, tmp_path: Path) -> None:
    """A fine-tuned checkpoint: `output_weights` and `output_bias` at the top, no pretraining heads."""
    import tensorflow as tf

    toy = shared / "data/weights/tf1_keras_bert_toy"
    reader = tf.train.load_checkpoint(str(toy / "bert_model.ckpt"))
    tensors = {
        name: reader.get_tensor(name)
        for name in reader.get_variable_to_shape_map()
        if name.startswith("bert/") and "adam" not in name
    }
    tensors["output_weights"] = np.arange(20, dtype=np.float32).reshape(5, 4)
    tensors["output_bias"] = np.arange(5, dtype=np.float32)
    tf.raw_ops.SaveV2(
        prefix=str(tmp_path / "model.ckpt-20"),
        tensor_names=list(tensors),
        shape_and_slices=[""] * len(tensors),
        tensors=[tf.constant(value) for value in tensors.values()],
    )
    shutil.copy(toy / "bert_config.json", tmp_path)
    model = pull_from_hub(tmp_path, component="model")
    assert isinstance(model, BertForSequenceClassification)
    assert model.config.num_labels == 5
    assert np.array_equal(model.classifier.kernel, tensors["output_weights"].T)


def test_a_tfhub_encoder_with_its_mlm_as_a_model(shared: Path) -> None:
    model = pull_from_hub(shared / "reference" / "encoder", component="model")
    assert isinstance(model, BertForMaskedLM)
    io = np.load(shared / "reference" / "encoder_io.npz")
    inputs = {n: io[f"b/in/{n}"] for n in ("input_word_ids", "input_mask", "input_type_ids")}
    positions = io["b/in/masked_lm_positions"][0]
    logits = flattened(model(inputs))[0][0][positions]
    np.testing.assert_allclose(logits, io["b/mlm/mlm_logits"][0], atol=1e-4)


def test_an_architecture_that_is_not_here(tmp_path: Path) -> None:
    directory = saved("BertModel", tmp_path / "model")
    with pytest.raises(
        CheckpointError, match=r"names the architecture 'BertModel'; known are BertForMaskedLM,"
    ):
        pull_from_hub(directory, component="model")


def test_a_head_as_a_saved_model(tmp_path: Path) -> None:
    import tensorflow as tf

    directory = saved("BertForSequenceClassification", tmp_path / "model")
    model = pull_from_hub(directory, component="model", trainable=True)
    export_saved_model(model, tmp_path / "exported")
    loaded = tf.saved_model.load(str(tmp_path / "exported"))
    inputs = {name: tf.constant(value) for name, value in batch().items()}
    np.testing.assert_allclose(loaded(inputs), model(inputs), atol=1e-5)
    assert len(loaded.trainable_variables) == len(model.trainable_variables)


def test_one_compiled_file_travels_alone(hub: FakeHub, tmp_path: Path) -> None:
    compiled = {"model.rknn": (1, 16), "rknn/model_b1_s32.rknn": (1, 32)}
    directory = write_foreign(tmp_path / "rk", files=compiled)
    (directory / "model.safetensors").write_bytes(b"not asked for")
    hub.add("owner/rk").commit_directory(directory)
    with pytest.raises(ArtifactError, match="runs on a board only"):
        pull_from_hub("owner/rk", file="rknn/model_b1_s32.rknn")
    assert hub.downloaded() == ["config.json", "rknn/model_b1_s32.rknn"]
    with pytest.raises(
        CheckpointError, match=r"owner/rk: there is no 'x.rknn'; its .rknn files are model.rknn"
    ):
        pull_from_hub("owner/rk", file="x.rknn")
