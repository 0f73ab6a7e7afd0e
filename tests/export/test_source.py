"""Taking models apart: directories, Keras layers, and what is refused."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from tfbert_npu.errors import CheckpointError
from tfbert_npu.export.onnx_file import compare_onnx, export_onnx
from tfbert_npu.export.source import ExportSource, source_of, tensorflow_reference
from tfbert_npu.heads import ENCODER, head_named, heads
from tfbert_npu.onnx.model import GraphOptions
from tfbert_npu.onnx.running import random_inputs

from .models import bert, padded_inputs


def test_a_directory_gives_weights_head_and_tokenizer(minilm):
    source = source_of(minilm)
    assert source.head.name == "encoder"
    assert source.tokenizer == minilm
    assert source.config.num_hidden_layers == 6
    assert source.state["embeddings.word_embeddings.weight"].shape == (30522, 384)


@pytest.mark.parametrize(
    ("class_name", "head"),
    [
        ("BertForTokenClassification", "token_classification"),
        ("BertForQuestionAnswering", "question_answering"),
        ("BertForMaskedLM", "masked_lm"),
        ("BertForPreTraining", "pretraining"),
        ("BertModel", "encoder"),
    ],
)
def test_the_head_is_what_config_json_says(tmp_path, class_name, head):
    _, _, model = bert(class_name)
    model.save_pretrained(tmp_path)
    assert source_of(tmp_path).head.name == head
    assert source_of(tmp_path, head="encoder").head.name == "encoder"


def test_an_unknown_head_or_thing_is_refused(tmp_path):
    config, state, _ = bert("BertModel")
    with pytest.raises(ValueError, match="head 'regression' is unknown"):
        source_of(ExportSource(config, state), head="regression")
    with pytest.raises(ValueError, match="a dict cannot be exported"):
        source_of({})
    with pytest.raises(FileNotFoundError):
        source_of(tmp_path / "no" / "such" / "directory")
    with pytest.raises(FileNotFoundError, match=r"holds no vocab\.txt"):
        source_of(ExportSource(config, state), tokenizer=tmp_path)


@pytest.mark.parametrize(
    ("value", "message"),
    [(np.nan, "NaN or infinity"), (np.inf, "NaN or infinity"), (1e5, "1e\\+05, more than float16")],
)
def test_weights_that_float16_cannot_hold_are_named(shared, tmp_path, value, message):
    shutil.copytree(shared / "data/weights/hf_tiny_random_bert", tmp_path / "m")
    path = tmp_path / "m" / "model.safetensors"
    path.chmod(0o600)
    tensors = load_file(path)
    name = next(key for key in tensors if key.endswith("layer.1.output.dense.weight"))
    tensors[name][3, 5] = value
    (tmp_path / "m").chmod(0o700)
    save_file(tensors, path)
    with pytest.raises(CheckpointError, match=rf"layer\.1\.output\.dense\.weight holds {message}"):
        source_of(tmp_path / "m")


def test_a_keras_encoder_is_its_own_reference(minilm):
    from tfbert_npu.models.encoder import BertEncoder

    encoder = BertEncoder.from_pretrained(minilm)
    source = source_of(encoder)
    assert source.reference_name == "tensorflow"
    from_files = source_of(minilm)
    assert source.state.keys() == from_files.state.keys()
    for name, tensor in source.state.items():
        np.testing.assert_array_equal(tensor, from_files.state[name])
    inputs = padded_inputs(source.config, 2, 9)
    again = tensorflow_reference(from_files)
    np.testing.assert_allclose(
        source.reference(inputs)["pooled_output"], again.reference(inputs)["pooled_output"], atol=1e-6
    )


def test_the_mlm_view_brings_its_head(minilm):
    from tfbert_npu.config import BertConfig
    from tfbert_npu.models.encoder import BertEncoder

    small = BertConfig(
        vocab_size=50, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16
    )
    source = source_of(BertEncoder(small, mlm=True).mlm)
    assert source.head.name == "masked_lm"
    assert "cls.predictions.transform.dense.weight" in source.state


def test_a_checkpoint_that_lacks_a_tensor_is_refused(tmp_path, shared):
    shutil.copytree(shared / "data/weights/hf_tiny_random_bert", tmp_path / "m")
    config = tmp_path / "m" / "config.json"
    (tmp_path / "m").chmod(0o700)
    config.chmod(0o600)
    values = json.loads(config.read_text())
    config.write_text(json.dumps({**values, "num_hidden_layers": 3}))
    with pytest.raises(CheckpointError, match=r"missing: encoder\.layer\.2"):
        source_of(tmp_path / "m")


@pytest.mark.parametrize("head", sorted(head.name for head in heads() if head != ENCODER))
def test_a_keras_head_is_its_own_reference_and_the_graph_agrees_with_it(head, tmp_path):
    from tfbert_npu.config import BertConfig
    from tfbert_npu.models import heads as classes

    config = BertConfig(
        vocab_size=60, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=24,
        max_position_embeddings=24, initializer_range=0.3,
    )  # fmt: skip
    labels = {"num_labels": 5} if head in ("sequence_classification", "token_classification") else {}
    model = getattr(classes, f"Bert{head_named(head).suffix}")(config, **labels)
    source = source_of(model)
    assert source.head.name == head
    specs = [spec.everywhere() for spec in head_named(head).outputs]
    names = [spec.name for spec in specs]
    inputs = random_inputs(config, (3, 10), runs=2)
    found = compare_onnx(export_onnx(model, tmp_path / "m.onnx"), source, specs, inputs, GraphOptions())
    assert set(found) == set(names)
    assert max(one.max_abs for one in found.values()) < 1e-5
    # The same weights without the model: the reference is built again from them.
    again = tensorflow_reference(ExportSource(source.config, source.state, head_named(head)))
    assert again.reference_name == "tensorflow"
    for name in names:
        np.testing.assert_allclose(
            again.reference(inputs[0])[name], source.reference(inputs[0])[name], atol=1e-6
        )


def test_a_causal_encoder_alone_is_refused_instead_of_exported_wrongly():
    from tfbert_npu.config import BertConfig
    from tfbert_npu.models.encoder import BertEncoder

    small = BertConfig(
        vocab_size=50, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16
    )
    with pytest.raises(ValueError, match="export its BertLMHeadModel"):
        source_of(BertEncoder(small, causal=True))
