"""The host tokenizer: batches, windows, padding, offsets; and that it needs no TensorFlow."""

from __future__ import annotations

import subprocess
import sys
from itertools import pairwise

import numpy as np
import pytest

from tfbert_npu.errors import VocabularyError
from tfbert_npu.preprocess import BertTokenizer, TextOptions, Vocabulary, byte_offsets_to_characters

VOCABULARY = Vocabulary(("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"abcdefgh", "##x", "naive", "中"))
A = VOCABULARY.ids["a"]


@pytest.fixture(scope="module")
def tokenizer() -> BertTokenizer:
    return BertTokenizer(VOCABULARY)


def test_windows_are_as_recorded(golden, vocabulary_directory):
    tokenizer = BertTokenizer.from_pretrained(vocabulary_directory("bert-base-uncased"))
    rows = golden("golden_qa_windows_bert-base-uncased_dev.jsonl")
    for key in {(row["max_length"], row["stride"]) for row in rows}:
        some = [row for row in rows if (row["max_length"], row["stride"]) == key]
        got = tokenizer(
            [row["question"] for row in some],
            [row["context"] for row in some],
            key[0],
            stride=key[1],
            return_offsets=True,
        )
        windows = [window for row in some for window in row["windows"]]
        for ours, theirs in (
            ("input_word_ids", "ids"),
            ("input_type_ids", "type_ids"),
            ("input_mask", "attention_mask"),
            ("offsets", "offsets"),
        ):
            np.testing.assert_array_equal(got[ours], [window[theirs] for window in windows])
        counts = [len(row["windows"]) for row in some]
        np.testing.assert_array_equal(got["text_index"], np.repeat(np.arange(len(some)), counts))


@pytest.mark.parametrize(
    "name", ["bert-base-uncased", "bert-base-cased", "bert-base-multilingual-cased", "bert-base-chinese"]
)
def test_offsets_are_as_recorded(name: str, golden, vocabulary_directory):
    tokenizer = BertTokenizer.from_pretrained(vocabulary_directory(name))
    rows = [row for row in golden(f"golden_{name}_dev.jsonl") if row["google_agrees"]]
    for row in rows:
        assert [list(span) for span in tokenizer.encode_with_offsets(row["text"])[1]] == row["offsets"][1:-1]


def test_windows_cover_the_text_and_share_the_stride(tokenizer):
    text = " ".join("abcdefgh"[i % 8] for i in range(23))
    got = tokenizer([text, "", "a"], seq_length=9, stride=3)
    assert got["text_index"].tolist() == [0, 0, 0, 0, 0, 1, 2]
    pieces = [
        row[1 : mask.sum() - 1] for row, mask in zip(got["input_word_ids"], got["input_mask"], strict=True)
    ]
    for left, right in pairwise(pieces[:5]):
        np.testing.assert_array_equal(left[-3:], right[:3])
    joined = np.concatenate([pieces[0], *(piece[3:] for piece in pieces[1:5])])
    assert joined.tolist() == tokenizer.encode(text)
    assert (len(pieces[5]), pieces[6].tolist()) == (0, [A])


def test_a_window_without_room_is_refused(tokenizer):
    with pytest.raises(ValueError, match="stride=5"):
        tokenizer(["a"], seq_length=7, stride=5)
    with pytest.raises(ValueError, match="text 0"):
        tokenizer(["a b c d e f g h"], ["a"], seq_length=10, stride=0)
    with pytest.raises(ValueError, match="stride=-1"):
        tokenizer(["a"], stride=-1)


def test_padding(tokenizer):
    texts = ["a b c", "a", ""]
    assert tokenizer(texts)["input_mask"].shape == (3, 128)
    longest = tokenizer(texts, padding="longest")
    assert longest["input_word_ids"].tolist() == [[2, A, A + 1, A + 2, 3], [2, A, 3, 0, 0], [2, 3, 0, 0, 0]]
    assert tokenizer(texts, padding="longest", pad_to_multiple_of=8)["input_mask"].shape == (3, 8)
    assert tokenizer(texts, seq_length=7, padding="longest", pad_to_multiple_of=8)["input_mask"].shape == (
        3,
        7,
    )
    assert tokenizer([], padding="longest")["input_mask"].shape == (0, 2)
    with pytest.raises(ValueError, match="padding='longest'"):
        tokenizer(texts, pad_to_multiple_of=8)


def test_offsets_index_the_users_own_text(tokenizer):
    text = "A\u0301\u200bX \tNAÏVE中\U0001f600"
    ids, spans = tokenizer.encode_with_offsets(text)
    assert [VOCABULARY.tokens[piece] for piece in ids] == ["a", "##x", "naive", "中", "[UNK]"]
    assert [text[start:end] for start, end in spans] == ["A", "X", "NAÏVE", "中", "\U0001f600"]
    _, in_bytes = tokenizer.encode_with_offsets(text, "bytes")
    data = text.encode()
    assert [data[start:end].decode() for start, end in in_bytes] == ["A", "X", "NAÏVE", "中", "\U0001f600"]
    assert byte_offsets_to_characters(text, in_bytes).tolist() == [list(span) for span in spans]
    got = tokenizer(["a", text], ["a x", "b"], 12, return_offsets=True)["offsets"]
    assert got.shape == (2, 12, 2)
    assert got[1, 1:6].tolist() == [list(span) for span in spans]
    assert got[0, 3:5].tolist() == [[0, 1], [2, 3]]
    assert not got[:, 0].any()
    in_bytes_too = tokenizer([text], return_offsets="bytes")["offsets"]
    assert in_bytes_too[0, 1:6].tolist() == [list(span) for span in in_bytes]


def test_offsets_of_invalid_bytes(tokenizer):
    data = b"\xff\xf0\x9f\x98a \xe4\xb8\xad\xed\xa0\x80" + "\ufffd".encode() + b"b\xc3"
    ids, spans = tokenizer.encode_with_offsets(data, "bytes")
    assert [data[start:end].decode() for start, end in spans] == ["a", "中", "b"]
    assert len(ids) == 3
    decoded = data.decode("utf-8", "replace")
    assert [decoded[start:end] for start, end in byte_offsets_to_characters(data, spans)] == ["a", "中", "b"]
    long = b"\xff" * 5000 + b"a" + "é".encode() * 4096 + b"\xe2\x82"
    assert tokenizer.encode_with_offsets(long, "bytes")[1][0] == (5000, 5000 + 1 + 2 * 4096)
    with pytest.raises(ValueError, match="character boundary"):
        byte_offsets_to_characters("é", [1])
    with pytest.raises(ValueError, match="character boundary"):
        byte_offsets_to_characters("a", [[0, 7]])


def test_offsets_need_the_users_text():
    with pytest.raises(ValueError, match="dialect='bert'"):
        BertTokenizer(VOCABULARY, TextOptions("tf_text"))(["a"], return_offsets=True)


def test_one_text_is_a_batch_of_one(tokenizer):
    for text in ("a b", b"a b", np.array(["a b"])):
        assert tokenizer(text, seq_length=5)["input_word_ids"].tolist() == [[2, A, A + 1, 3, 0]]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"texts": None}, "NoneType"),
        ({"texts": 3}, "int"),
        ({"texts": ["a", None]}, r"texts\[1\] must be str or bytes, not NoneType"),
        ({"texts": [["a"], ["b", ["c"]]]}, r"texts\[0\] .* list"),
        ({"texts": np.zeros(2)}, r"texts\[0\] .* float64"),
        ({"texts": ["a"], "text_pairs": ["a", "b"]}, "1 texts but 2 text_pairs"),
        ({"texts": ["a"], "seq_length": 1}, "seq_length=1 .* at least 2"),
        ({"texts": ["a"], "text_pairs": ["b"], "seq_length": 2}, "seq_length=2 .* at least 3"),
        ({"texts": ["a"], "seq_length": 2.0}, "integer"),
        ({"texts": ["a"], "seq_length": None}, "integer"),
        ({"texts": ["a"], "trimming": "random"}, "'round_robin', 'longest_first', 'waterfall'"),
        ({"texts": ["a"], "padding": "max"}, "'fixed', 'longest'"),
        ({"texts": ["a"], "return_offsets": "words"}, "'characters', 'bytes'"),
    ],
)
def test_bad_arguments_are_refused(tokenizer, arguments: dict, message: str):
    with pytest.raises(ValueError, match=message):
        tokenizer(**arguments)


def test_an_allowed_token_must_exist():
    with pytest.raises(VocabularyError, match=r"\[E1\]"):
        BertTokenizer(VOCABULARY, TextOptions(allow_special_tokens={"[E1]"}))


def test_memory_of_words_is_bounded(tokenizer, monkeypatch):
    from tfbert_npu.preprocess import wordpiece

    monkeypatch.setattr(wordpiece, "_MAX_REMEMBERED_CHARACTERS", 50)
    fresh = BertTokenizer(VOCABULARY)
    for number in range(200):
        assert fresh.encode(f"a{number} a") == [1, A]
        assert fresh.encode_with_offsets(f"a{number} a")[0] == [1, A]
    for memory in (fresh._chunks, fresh._words, fresh._aligned):
        assert 0 < sum(len(key) + 1 for key in memory) <= 50
    monkeypatch.undo()
    fresh.encode("y" * 201)
    assert "y" * 201 not in fresh._words


def test_no_tensorflow_and_nothing_slow(tmp_path):
    (tmp_path / "vocab.txt").write_text(VOCABULARY.to_text(), encoding="utf-8")
    code = """
import sys
from tfbert_npu.preprocess import BertTokenizer
for dialect in ("bert", "tf_text"):
    BertTokenizer.from_pretrained(sys.argv[1], dialect=dialect, lower_case=True)(["a Á"], ["b"])
slow = {"tensorflow", "keras", "torch", "transformers", "huggingface_hub", "tf_keras"} & set(sys.modules)
assert not slow, slow
"""
    subprocess.run([sys.executable, "-W", "error", "-c", code, tmp_path], check=True)
