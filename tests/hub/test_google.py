"""Google's TF1 checkpoints: against goldens of another implementation, through a round trip, and damaged."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file

from tfbert_npu import pull_from_hub
from tfbert_npu.checkpoints.google import find_prefix, read_google
from tfbert_npu.config import BertConfig
from tfbert_npu.errors import CheckpointError


@pytest.fixture
def toy(shared: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(shared / "data/weights/tf1_keras_bert_toy", tmp_path / "toy"))


@pytest.fixture
def golden(shared: Path) -> dict[str, np.ndarray]:
    return dict(np.load(shared / "data/golden/tf1_keras_bert_toy_dev/kb.npz"))


@pytest.mark.parametrize("case", ["0", "1"])
def test_the_toy_checkpoint_matches_its_golden(toy: Path, golden, case: str) -> None:
    encoder = pull_from_hub(toy)
    ids = golden[f"{case}.input_ids"][None].astype(np.int32)
    inputs = {
        "input_word_ids": ids,
        "input_mask": golden[f"{case}.attention_mask"][None].astype(np.int32),
        "input_type_ids": golden[f"{case}.token_type_ids"][None].astype(np.int32),
        "masked_lm_positions": np.arange(ids.shape[1], dtype=np.int32)[None],
    }
    outputs = encoder.mlm(inputs)
    for layer, hidden in enumerate(outputs["encoder_outputs"], start=1):
        np.testing.assert_allclose(hidden[0], golden[f"{case}.hidden_states"][layer], atol=1e-5)
    np.testing.assert_allclose(outputs["pooled_output"][0], golden[f"{case}.pooled"], atol=1e-5)
    np.testing.assert_allclose(outputs["mlm_logits"][0], golden[f"{case}.mlm"], atol=1e-5)
    # The NSP head is a part of the state for the heads that use it.
    state = read_google(toy).state
    nsp = outputs["pooled_output"][0].numpy() @ state["cls.seq_relationship.weight"].T
    np.testing.assert_allclose(nsp + state["cls.seq_relationship.bias"], golden[f"{case}.nsp"], atol=1e-5)


def test_what_the_optimizer_left_is_left_aside(toy: Path) -> None:
    import tensorflow as tf

    names = tf.train.load_checkpoint(str(toy / "bert_model.ckpt")).get_variable_to_shape_map()
    assert "global_step" in names
    assert any(name.endswith("/adam_m") for name in names)
    checkpoint = read_google(toy)
    assert not [name for name in checkpoint.state if "adam" in name]
    assert checkpoint.vocabulary == toy / "vocab.txt"
    assert checkpoint.config.hidden_act == "gelu_tanh"


def _google_name(name: str) -> tuple[str, bool]:
    """Google's name of a transformers BERT tensor, and whether it is transposed.

    Written from google-research/bert's modeling.py, apart from the package's own table.
    """
    name = re.sub(r"encoder\.layer\.(\d+)\.", r"encoder/layer_\1/", name).replace(".", "/")
    transposed = bool(re.search(r"(query|key|value|dense)/weight$", name))
    name = re.sub(r"_embeddings/weight$", "_embeddings", name)
    name = name.replace("LayerNorm/weight", "LayerNorm/gamma").replace("LayerNorm/bias", "LayerNorm/beta")
    return "bert/" + name.removesuffix("/weight") + (
        "/kernel" if name.endswith("/weight") else ""
    ), transposed


def test_minilm_as_a_tf1_checkpoint_comes_back_bit_equal(minilm: Path, tmp_path: Path) -> None:
    import tensorflow as tf

    config = BertConfig.from_json(minilm)
    tensors = load_file(minilm / "model.safetensors")
    tensors.pop("embeddings.position_ids", None)
    renamed = {}
    for name, tensor in tensors.items():
        google, transposed = _google_name(name)
        renamed[google] = tensor.T if transposed else tensor
    names, values = zip(*renamed.items(), strict=True)
    tf.raw_ops.SaveV2(
        prefix=str(tmp_path / "bert_model.ckpt"),
        tensor_names=list(names),
        shape_and_slices=[""] * len(names),
        tensors=[tf.constant(np.ascontiguousarray(value)) for value in values],
    )
    values_of = config.to_dict()
    keys = ("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size")
    keys += ("max_position_embeddings", "type_vocab_size")
    google_config = {**{key: values_of[key] for key in keys}, "hidden_act": "gelu"}
    (tmp_path / "bert_config.json").write_text(json.dumps(google_config))
    state = read_google(tmp_path).state
    assert state.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert state[name].dtype == tensor.dtype
        assert np.array_equal(state[name], tensor), name
    encoder = pull_from_hub(tmp_path)
    assert np.array_equal(
        encoder.embeddings.word_embeddings.embeddings, tensors["embeddings.word_embeddings.weight"]
    )


def test_the_folder_of_an_unpacked_archive_is_found(toy: Path, tmp_path: Path) -> None:
    parent = tmp_path / "unpacked"
    shutil.copytree(toy, parent / "uncased_L-2_H-4_A-4")
    assert pull_from_hub(parent).config == pull_from_hub(toy).config
    shutil.copytree(toy, parent / "second")
    with pytest.raises(
        CheckpointError, match=r"several folders hold a model \(second, uncased_L-2_H-4_A-4\)"
    ):
        pull_from_hub(parent)


@pytest.mark.parametrize("keep", [0, 100, 8000])
def test_a_truncated_data_file(toy: Path, keep: int) -> None:
    data = toy / "bert_model.ckpt.data-00000-of-00001"
    data.write_bytes(data.read_bytes()[:keep])
    with pytest.raises(CheckpointError, match=r"bert_model\.ckpt.*download it again"):
        pull_from_hub(toy)


def test_missing_parts(toy: Path) -> None:
    (toy / "bert_model.ckpt.data-00000-of-00001").unlink()
    with pytest.raises((CheckpointError, FileNotFoundError), match=r"bert_model\.ckpt\.data"):
        pull_from_hub(toy)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_hidden_layers": 1}, r"a BERT with 1 layers lacks \(bert/encoder/layer_1/.*and 8 more"),
        ({"num_hidden_layers": 3}, r"missing: encoder\.layer\.2\."),
        ({"hidden_size": 8}, r"\[15, 4\], not \[15, 8\]"),
        ({"num_hidden_layers": 1_000_000}, r"num_hidden_layers must be a whole number from 1 to 1000"),
    ],
)
def test_a_configuration_that_does_not_fit(toy: Path, change: dict, message: str) -> None:
    path = toy / "bert_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(CheckpointError, match=message):
        pull_from_hub(toy)


def test_which_checkpoint() -> None:
    assert find_prefix(["model.ckpt-20.index", "vocab.txt"]) == "model.ckpt-20"
    assert find_prefix(["bert_model.ckpt.index", "model.ckpt-20.index"]) == "bert_model.ckpt"
    with pytest.raises(CheckpointError, match=r"several checkpoints \(a, b\)"):
        find_prefix(["a.index", "b.index"])
    with pytest.raises(FileNotFoundError, match=r"ends with \.index"):
        find_prefix(["a.data-00000-of-00001"])


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 255)), min_size=1, max_size=12), st.booleans()
)
def test_damaged_bytes_give_one_kind_of_error(toy: Path, damage, in_index: bool) -> None:
    file = toy / ("bert_model.ckpt.index" if in_index else "bert_model.ckpt.data-00000-of-00001")
    pristine = file.read_bytes()
    content = bytearray(pristine)
    for place, value in damage:
        content[place % len(content)] = value
    file.write_bytes(content)
    try:
        read_google(toy)
    except CheckpointError as error:
        assert "\n" not in str(error)  # noqa: PT017 - no error at all is as good
    finally:
        file.write_bytes(pristine)
