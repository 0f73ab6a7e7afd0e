"""Wrong inputs of the encoder: one sentence that names the cause."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from tfbert_npu import BertConfig, BertEncoder
from tfbert_npu.inputs import check_inputs

NAMES = ("input_word_ids", "input_mask", "input_type_ids")


@pytest.fixture
def encoder(config: BertConfig) -> BertEncoder:
    return BertEncoder(config, mlm=True)


def inputs(**changes: Any) -> dict[str, Any]:
    batch = {name: np.ones((2, 6), np.int32) for name in NAMES}
    return {name: value for name, value in {**batch, **changes}.items() if value is not None}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"input_mask": None},
            "inputs lack input_mask; wanted are input_word_ids, input_mask, input_type_ids",
        ),
        ({"strange": np.ones((2, 6), np.int32)}, "inputs have the unknown strange"),
        ({"input_word_ids": np.ones((2, 6), np.float32)}, "input_word_ids must hold integers, got float32"),
        ({"input_word_ids": np.ones((2, 6), bool)}, "input_word_ids must hold integers, got bool"),
        ({"input_word_ids": np.array([["a"] * 6] * 2)}, "input_word_ids must hold integers"),
        ({"input_word_ids": [[1, 2], [3]]}, "input_word_ids must be a rectangle of integers"),
        (
            {"input_word_ids": np.ones((6,), np.int32)},
            r"must have rank 2, \[batch, length\], got shape \(6,\)",
        ),
        ({"input_mask": np.ones((2, 5), np.int32)}, r"input_mask has shape \(2, 5\) but input_word_ids has"),
        (
            {"input_word_ids": np.full((2, 6), 97)},
            r"input_word_ids\[0, 0\] is 97, but the vocabulary has 0 to 96",
        ),
        ({"input_word_ids": np.full((2, 6), -1)}, r"input_word_ids\[0, 0\] is -1"),
        ({"input_type_ids": np.full((2, 6), 2)}, "but the model's token types are 0 to 1"),
        # float arithmetic would make another bias of each, and an int32 cast a 0 of the last.
        ({"input_mask": np.full((2, 6), 255)}, r"input_mask\[0, 0\] is 255, but a mask holds 1 for tokens"),
        ({"input_mask": np.full((2, 6), -1)}, r"input_mask\[0, 0\] is -1"),
        ({"input_mask": np.full((2, 6), 2**32)}, r"input_mask\[0, 0\] is 4294967296"),
        ({"input_mask": np.full((2, 6), 255, np.int32)}, r"input_mask\[0, 0\] is 255"),
    ],
)
@pytest.mark.parametrize("convert", [lambda x: x, tf.convert_to_tensor], ids=["numpy", "tensor"])
def test_wrong_inputs(encoder: BertEncoder, changes: dict[str, Any], message: str, convert: Any) -> None:
    batch = inputs(**changes)
    if not any(isinstance(value, list) for value in batch.values()):
        batch = {name: convert(value) for name, value in batch.items()}
    with pytest.raises(ValueError, match=message) as caught:
        encoder(batch)
    assert "\n" not in str(caught.value)


def test_no_tokens(encoder: BertEncoder) -> None:
    with pytest.raises(ValueError, match="a sequence needs one token at least"):
        encoder({name: np.ones((2, 0), np.int32) for name in NAMES})


def test_not_a_dict(encoder: BertEncoder) -> None:
    with pytest.raises(ValueError, match="inputs must be a dict with input_word_ids, input_mask"):
        encoder(np.ones((2, 6), np.int32))


@pytest.mark.parametrize("symbolic", [False, True])
def test_too_long(encoder: BertEncoder, symbolic: bool) -> None:
    long: dict[str, Any] = {name: np.ones((1, 33), np.int32) for name in NAMES}
    if symbolic:
        long = {name: keras.Input((33,), dtype="int32") for name in NAMES}
    with pytest.raises(
        ValueError, match="have 33 tokens but the model has positions for 32; choose a seq_length"
    ):
        encoder(long)


def test_lists_and_wide_integers_are_welcome(encoder: BertEncoder) -> None:
    plain = encoder(inputs())["pooled_output"]
    for convert in (lambda x: x.tolist(), lambda x: x.astype(np.int64), lambda x: x.astype(np.uint8)):
        given = {name: convert(value) for name, value in inputs().items()}
        np.testing.assert_array_equal(plain, encoder(given)["pooled_output"])


def test_distilbert_does_without_types(config: BertConfig) -> None:
    encoder = BertEncoder(config.replace(model_type="distilbert"))
    with_types = encoder(inputs(input_type_ids=np.full((2, 6), 9)))["sequence_output"]
    np.testing.assert_array_equal(with_types, encoder(inputs(input_type_ids=None))["sequence_output"])


@pytest.mark.parametrize("wrong", [97, -1])
def test_out_of_range_inside_a_graph(encoder: BertEncoder, wrong: int) -> None:
    call = tf.function(encoder.__call__)
    batch = {name: tf.constant(value) for name, value in inputs().items()}
    call(batch)
    batch["input_word_ids"] = tf.fill((2, 6), wrong)
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"is not in \[0, 97\)"):
        call(batch)


@pytest.mark.parametrize("wrong", [6, -1])
def test_positions_beyond_the_sequence(encoder: BertEncoder, wrong: int) -> None:
    batch = inputs(masked_lm_positions=np.array([[0, 5], [wrong, 0]], np.int32))
    with pytest.raises(
        ValueError, match=rf"masked_lm_positions\[1, 0\] is {wrong}, but the sequence's tokens are 0 to 5"
    ):
        encoder.mlm(batch)
    tensors = {name: tf.constant(value) for name, value in batch.items()}
    with pytest.raises(tf.errors.InvalidArgumentError, match="is not in"):
        tf.function(encoder.mlm.__call__)(tensors)


def test_mlm_wants_its_positions(encoder: BertEncoder) -> None:
    with pytest.raises(ValueError, match="inputs lack masked_lm_positions"):
        encoder.mlm(inputs())


@settings(deadline=None)
@given(st.data(), st.booleans())
def test_arrays_are_judged_as_lists_are(data: st.DataObject, mlm: bool) -> None:
    """Arrays of int32 without a fault are recognized quickly; lists never are, and must fare the same."""
    small = BertConfig(vocab_size=9, max_position_embeddings=5, type_vocab_size=2)
    length = data.draw(st.integers(1, 6))
    lengths = {name: data.draw(st.sampled_from([length] * 9 + [2])) for name in NAMES}
    limits = {"input_word_ids": 9, "input_mask": 2, "input_type_ids": 2}
    if mlm:
        lengths["masked_lm_positions"], limits["masked_lm_positions"] = 2, length
    rows = {
        name: [
            [data.draw(st.sampled_from([*range(limits[name])] * 9 + [-1, limits[name]])) for _ in range(size)]
            for _ in range(2)
        ]
        for name, size in lengths.items()
    }
    arrays = {name: np.array(value, np.int32) for name, value in rows.items()}
    outcomes = []
    for given_inputs in (arrays, rows):
        try:
            outcomes.append(
                {name: value.tolist() for name, value in check_inputs(given_inputs, small, mlm).items()}
            )
        except ValueError as error:
            outcomes.append(str(error))
    assert outcomes[0] == outcomes[1]
