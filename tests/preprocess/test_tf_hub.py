"""The parts of the layer held against a published TF-Hub preprocessor's recorded output."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import pytest
import tensorflow as tf

from tfbert_npu.preprocess import BertPreprocessor


class Reference(NamedTuple):
    texts: list[bytes]
    valid: list[bytes]
    recorded: dict[str, np.ndarray]
    layer: BertPreprocessor


@pytest.fixture(scope="module")
def reference(shared) -> Reference:
    folder = shared / "reference"
    document = json.loads((folder / "preprocess_texts.json").read_text())
    texts = [base64.b64decode(text) for text in document["texts"]]
    with np.load(folder / "preprocess_io.npz") as file:
        recorded = dict(file)
    layer = BertPreprocessor.from_pretrained(folder / "preprocess", dialect="tf_text", lower_case=True)
    return Reference(texts, texts[: document["n_valid"]], recorded, layer)


def assert_recorded(got: dict[str, tf.Tensor], recorded: dict[str, np.ndarray], prefix: str) -> None:
    assert set(got) == {"input_word_ids", "input_mask", "input_type_ids"}
    for name, value in got.items():
        np.testing.assert_array_equal(value, recorded[f"{prefix}/{name}"])


def assert_ragged(got: tf.RaggedTensor, recorded: dict[str, np.ndarray], prefix: str) -> None:
    flat = recorded[f"{prefix}/flat"]
    assert got.dtype.as_numpy_dtype == flat.dtype
    np.testing.assert_array_equal(got.flat_values, flat)
    for index, splits in enumerate(got.nested_row_splits):
        np.testing.assert_array_equal(splits, recorded[f"{prefix}/splits{index}"])


def test_the_root(reference):
    assert_recorded(reference.layer(reference.valid), reference.recorded, "root")
    assert_recorded(reference.layer(reference.texts), reference.recorded, "root_all")
    assert_recorded(reference.layer([reference.texts]), reference.recorded, "root_all")


def test_tokenize(reference):
    assert_ragged(reference.layer.tokenize(reference.valid), reference.recorded, "tokenize")
    assert_ragged(reference.layer.tokenize(reference.texts), reference.recorded, "tokenize_all")
    for index, part in enumerate(reference.layer.tokenize_with_offsets(reference.valid)):
        assert_ragged(part, reference.recorded, f"tokenize_with_offsets/{index}")


@pytest.mark.parametrize("seq_length", [8, 16, 64, 128])
def test_packing(reference, seq_length: int):
    pieces = reference.layer.tokenize(reference.valid)
    for segment in (pieces, pieces.merge_dims(1, 2)):
        pair = [segment, segment[::-1]]
        pack: Callable = reference.layer.bert_pack_inputs
        assert_recorded(pack([segment], seq_length=seq_length), reference.recorded, f"pack1_{seq_length}")
        assert_recorded(pack(pair, seq_length=seq_length), reference.recorded, f"pack2_{seq_length}")
    texts = [reference.valid, reference.valid[::-1]]
    assert_recorded(reference.layer(texts, seq_length=seq_length), reference.recorded, f"pack2_{seq_length}")


def test_packing_defaults(reference):
    pieces = reference.layer.tokenize(reference.valid)
    flat = pieces.merge_dims(1, 2)
    pack = reference.layer.bert_pack_inputs
    assert_recorded(pack([pieces, pieces[::-1]]), reference.recorded, "pack2_default")
    assert_recorded(
        pack([flat, flat[::-1]], seq_length=tf.constant(16)), reference.recorded, "pack2_rank2_16"
    )


def test_special_tokens(reference):
    special = reference.layer.get_special_tokens_dict()
    assert special == reference.layer.tokenize.get_special_tokens_dict()
    assert set(special) == {key.split("/")[1] for key in reference.recorded if key.startswith("special/")}
    assert all(special[key] == reference.recorded[f"special/{key}"] for key in special)
