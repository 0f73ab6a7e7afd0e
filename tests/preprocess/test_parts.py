"""The preprocessor's parts in pipelines, functional models and saved files."""

from __future__ import annotations

import os
import subprocess
import sys
from itertools import product

import keras
import numpy as np
import pytest
import tensorflow as tf
import tensorflow_text as tf_text

from tfbert_npu.preprocess import BertPreprocessor, TextOptions, Vocabulary
from tfbert_npu.preprocess.trimming import trim_pair

VOCABULARY = Vocabulary(("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"abcdefgh", "##x", "##y", "!"))
TEXTS = ["axy b!", "", "É c", "zz a " * 9]


@pytest.fixture(scope="module", params=["bert", "tf_text"])
def layer(request) -> BertPreprocessor:
    return BertPreprocessor(VOCABULARY, TextOptions(request.param), 12)


def test_tokenize_gives_pieces_by_word(layer):
    ids = layer.tokenize(TEXTS[:3])
    a, x, y = VOCABULARY.ids["a"], VOCABULARY.ids["##x"], VOCABULARY.ids["##y"]
    assert ids.dtype == tf.int32
    assert ids.to_list() == [[[a, x, y], [a + 1], [y + 1]], [], [[a + 4], [a + 2]]]
    assert layer.tokenize([]).shape.as_list() == [0, None, None]
    words = layer.detokenize(ids.merge_dims(1, 2))
    assert words.to_list() == [[b"axy", b"b", b"!"], [b""], [b"e", b"c"]]
    assert layer.detokenize(layer([TEXTS[0]])["input_word_ids"]).to_list() == [
        [b"[CLS]", b"axy", b"b", b"!", b"[SEP]", *[b"[PAD]"] * 5]
    ]


def test_detokenize_is_tensorflow_texts(layer):
    table = tf.lookup.StaticVocabularyTable(
        tf.lookup.KeyValueTensorInitializer(
            list(VOCABULARY.tokens), range(len(VOCABULARY)), tf.string, tf.int64
        ),
        1,
    )
    theirs = tf_text.BertTokenizer(table, token_out_type=tf.int32)
    random = np.random.default_rng(0)
    rows = tf.RaggedTensor.from_row_lengths(
        random.integers(0, len(VOCABULARY), 60, dtype=np.int32), [0, 1, 9, 20, 30]
    )
    assert layer.detokenize(rows).to_list() == theirs.detokenize(rows).to_list()
    by_word = layer.tokenize(TEXTS)
    assert layer.detokenize(by_word).to_list() == theirs.detokenize(by_word).to_list()


def test_parts_make_the_whole(layer):
    other = TEXTS[::-1]
    pieces = [layer.tokenize(TEXTS), layer.tokenize(other)]
    for segments, texts in ((pieces[:1], TEXTS), (pieces, [TEXTS, other])):
        packed, whole = layer.bert_pack_inputs(segments, seq_length=9), layer(texts, seq_length=9)
        for name in whole:
            np.testing.assert_array_equal(packed[name], whole[name])
    as_lists = layer.bert_pack_inputs([pieces[0].to_list()])["input_word_ids"]
    np.testing.assert_array_equal(as_lists, layer(TEXTS)["input_word_ids"])


def test_parts_in_a_pipeline(layer):
    def cut(texts: tf.Tensor) -> tuple:
        ids, starts, limits = layer.tokenize_with_offsets(texts)
        return layer.bert_pack_inputs([ids]), layer.tokenize(texts), starts, limits, layer.detokenize(ids)

    packed, ids, starts, limits, _ = next(iter(tf.data.Dataset.from_tensor_slices(TEXTS).batch(4).map(cut)))
    np.testing.assert_array_equal(packed["input_word_ids"], layer(TEXTS)["input_word_ids"])
    eager = layer.tokenize_with_offsets(TEXTS)
    for got, want in zip((ids, starts, limits), eager, strict=True):
        assert got.to_list() == want.to_list()


CHECK = """
import sys, numpy as np, keras, tensorflow as tf, tensorflow_text
want = np.load(sys.argv[2])
texts = tf.constant([str(text) for text in want["texts"]])
if sys.argv[1].endswith(".keras"):
    import tfbert_npu.preprocess.layer
    packed, ids, starts, words = keras.saving.load_model(sys.argv[1])(texts)
else:
    packed, ids, starts, words = tf.saved_model.load(sys.argv[1]).run(texts)
np.testing.assert_array_equal(packed["input_word_ids"], want["packed"])
np.testing.assert_array_equal(ids.flat_values, want["ids"])
np.testing.assert_array_equal(starts.flat_values, want["starts"])
np.testing.assert_array_equal(words.flat_values.numpy().astype(str), want["words"])
"""


@pytest.mark.parametrize("kind", ["keras", "saved_model"])
def test_parts_survive_saving(layer, kind: str, tmp_path):
    text = keras.Input(shape=(), dtype="string")
    ids, starts, _ = layer.tokenize_with_offsets(text)
    again = layer.tokenize(text)
    assert (ids.shape, starts.dtype) == ((None, None, None), "int64")
    outputs = [layer.bert_pack_inputs([ids, again], seq_length=10), ids, starts, layer.detokenize(again)]
    assert outputs[0]["input_mask"].shape == (None, 10)
    model = keras.Model(text, outputs)
    packed, got_ids, got_starts, words = model(tf.constant(TEXTS))
    pieces = layer.tokenize(TEXTS)
    np.testing.assert_array_equal(
        packed["input_word_ids"], layer.bert_pack_inputs([pieces] * 2, seq_length=10)["input_word_ids"]
    )
    assert got_ids.to_list() == pieces.to_list()
    np.savez(
        tmp_path / "want.npz",
        texts=np.array(TEXTS),
        packed=packed["input_word_ids"],
        ids=got_ids.flat_values,
        starts=got_starts.flat_values,
        words=words.flat_values.numpy().astype(str),
    )
    path = tmp_path / "model.keras"
    if kind == "keras":
        model.save(path)
    else:
        module, path = tf.Module(), tmp_path / "saved"
        module.model = model
        module.run = tf.function(
            lambda texts: model(texts), input_signature=[tf.TensorSpec([None], tf.string)]
        )
        tf.saved_model.save(module, str(path))
    done = subprocess.run(
        [sys.executable, "-c", CHECK, path, tmp_path / "want.npz"],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"},
    )
    assert done.returncode == 0, done.stderr


def trim_one_by_one(trimming: str, first: int, second: int, budget: int) -> tuple[int, int]:
    """The rules as their authors state them: a place at a time."""
    if trimming == "longest_first":
        # Hugging Face tokenizers: even out; the odd place to the longer, on a tie to the second.
        a, b = first, second
        while a + b > budget:
            if a > b or (a == b and first <= second):
                a -= 1
            else:
                b -= 1
        return a, b
    kept = [0, 0]
    turns = (
        product(range(first + second + 1), range(2))
        if trimming == "round_robin"
        else product((0, 1), range(first + second))
    )
    for left, right in turns:
        segment = right if trimming == "round_robin" else left
        if sum(kept) < budget and kept[segment] < (first, second)[segment]:
            kept[segment] += 1
    return kept[0], kept[1]


@pytest.mark.parametrize("trimming", ["round_robin", "longest_first", "waterfall"])
def test_trimming(trimming: str):
    cases = np.array(list(product(range(8), range(8), range(10))), np.int32)
    want = [trim_one_by_one(trimming, *case) for case in cases.tolist()]
    assert [trim_pair(trimming, *case, min, max) for case in cases.tolist()] == want
    arrays = trim_pair(trimming, *map(tf.constant, cases.T), tf.minimum, tf.maximum)
    np.testing.assert_array_equal(np.stack(arrays, 1), want)
    layer = BertPreprocessor(VOCABULARY, seq_length=10, trimming=trimming)
    got = layer.bert_pack_inputs([[[5] * 9, [5] * 2], [[6] * 4, [6] * 8]])["input_word_ids"].numpy()
    counts = [((row == 5).sum(), (row == 6).sum()) for row in got]
    assert counts == [trim_one_by_one(trimming, 9, 4, 7), trim_one_by_one(trimming, 2, 8, 7)]


def test_trimmers_of_tensorflow_text_agree():
    a, b = (
        tf.RaggedTensor.from_row_lengths(tf.range(28), lengths)
        for lengths in ([7, 0, 3, 9, 9], [9, 9, 3, 0, 7])
    )
    for trimming, trimmer in (
        ("round_robin", tf_text.RoundRobinTrimmer),
        ("waterfall", tf_text.WaterfallTrimmer),
    ):
        for budget in range(1, 18):
            trimmed = trimmer(budget).trim([a, b])
            ours = trim_pair(trimming, a.row_lengths(), b.row_lengths(), budget, tf.minimum, tf.maximum)
            for segment, lengths in zip(trimmed, ours, strict=True):
                np.testing.assert_array_equal(segment.row_lengths(), lengths)


@pytest.mark.parametrize(
    ("segments", "message"),
    [
        (None, "list of one or two segments"),
        ([], "list of one or two segments"),
        (tf.ragged.constant([[1]]), "list of one or two segments"),
        ([[[1]], [[2]], [[3]]], "one or two segments, not 3"),
        ([tf.constant([1])], "shape"),
        ([tf.ragged.constant([["a"]])], "dtype string"),
        ([tf.constant([[1.0]])], "dtype float32"),
        ([tf.ragged.constant([[[[1]]]])], "rank 4"),
    ],
)
def test_what_is_no_segment_is_refused(segments, message: str):
    layer = BertPreprocessor(VOCABULARY)
    with pytest.raises(ValueError, match=message):
        layer.bert_pack_inputs(segments)
    with pytest.raises(ValueError, match="trimming"):
        layer.bert_pack_inputs([[[1]]], trimming="random")


def test_unequal_segments_are_refused():
    layer = BertPreprocessor(VOCABULARY)
    with pytest.raises((ValueError, tf.errors.InvalidArgumentError), match="different numbers"):
        layer.bert_pack_inputs([[[1], [2]], [[3]]])
    encode = tf.function(lambda a, b: layer([a, b]), input_signature=[tf.TensorSpec([None], tf.string)] * 2)
    with pytest.raises(tf.errors.InvalidArgumentError, match="different numbers"):
        encode(tf.constant(["a", "b"]), tf.constant(["a"]))
