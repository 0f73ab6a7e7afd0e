from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tfbert_npu.errors import CheckpointError, VocabularyError
from tfbert_npu.preprocess.options import TextOptions, read_options
from tfbert_npu.preprocess.vocabulary import Vocabulary

SPECIAL = "[PAD]\n[UNK]\n[CLS]\n[SEP]\n"


def test_ids_are_line_numbers():
    vocabulary = Vocabulary.from_text(SPECIAL + "a\n##b\n")
    assert (vocabulary.pad_id, vocabulary.unk_id, vocabulary.cls_id, vocabulary.sep_id) == (0, 1, 2, 3)
    assert vocabulary.tokens[4:] == ("a", "##b")
    assert Vocabulary.from_text(vocabulary.to_text()) == vocabulary


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "empty"),
        ("\n\n", "empty"),
        ("\ufeff" + SPECIAL, "byte order mark"),
        ("[PAD]\n[UNK]\n[CLS]\na\n", r"lacks \[SEP\]"),
        ("[UNK]\n[CLS]\n[SEP]\na\n", r"lacks \[PAD\]"),
        ("a\nb\n", r"lacks \[UNK\], \[CLS\], \[SEP\], \[PAD\]"),
    ],
)
def test_unusable_vocabularies_are_refused(text: str, message: str):
    with pytest.raises(VocabularyError, match=message):
        Vocabulary.from_text(text, "vocab.txt")


def test_lines_end_at_lf_or_crlf_only():
    vocabulary = Vocabulary.from_text((SPECIAL + "a\u0085b\n\u2028\n##\u2028\nc\n").replace("\n", "\r\n"))
    assert vocabulary.tokens[4:] == ("a\u0085b", "\u2028", "##", "c")


def test_a_file_too_large_is_refused_before_it_is_read(tmp_path: Path):
    path = tmp_path / "vocab.txt"
    with path.open("wb") as file:
        file.truncate(2 << 30)  # sparse: takes no room on the disk
    with pytest.raises(VocabularyError, match="2147 MB"):
        Vocabulary.from_file(path)


def test_a_file_that_is_not_utf8_is_refused(tmp_path: Path):
    (tmp_path / "vocab.txt").write_bytes(b"[PAD]\n\xff\n")
    with pytest.raises(VocabularyError, match="not UTF-8 at byte 6"):
        Vocabulary.from_directory(tmp_path)


def test_a_directory_without_vocabulary_is_an_error(tmp_path: Path):
    with pytest.raises(FileNotFoundError, match="no vocabulary"):
        Vocabulary.from_directory(tmp_path)


def test_tokenizer_json_serves_where_there_is_no_vocab_txt(tmp_path: Path):
    tokens = [*SPECIAL.split(), "b", "##a"]
    model = {
        "type": "WordPiece",
        "vocab": {token: index for index, token in reversed(list(enumerate(tokens)))},
    }
    normalizer = {
        "type": "BertNormalizer",
        "lowercase": False,
        "strip_accents": True,
        "handle_chinese_chars": False,
    }
    (tmp_path / "tokenizer.json").write_text(json.dumps({"model": model, "normalizer": normalizer}))
    assert list(Vocabulary.from_directory(tmp_path).tokens) == tokens
    assert read_options(tmp_path) == TextOptions("bert", False, True, False)
    (tmp_path / "tokenizer.json").write_text(json.dumps({"model": {"type": "BPE", "vocab": {}}}))
    with pytest.raises(VocabularyError, match="BPE"):
        Vocabulary.from_directory(tmp_path)


def test_tokenizer_config_comes_before_tokenizer_json(tmp_path: Path):
    (tmp_path / "tokenizer_config.json").write_text('{"do_lower_case": true}')
    (tmp_path / "tokenizer.json").write_text('{"normalizer": {"type": "BertNormalizer", "lowercase": false}}')
    assert read_options(tmp_path).lower_case
    assert not read_options(tmp_path, lower_case=False).lower_case


@pytest.mark.parametrize(
    ("name", "lower_case"),
    [
        ("google-bert/bert-base-uncased", True),
        ("google-bert/bert-base-cased", False),
        ("uncased_L-12_H-768_A-12", True),
        ("google-bert/bert-base-chinese", False),
        ("chinese_L-12_H-768_A-12", True),
    ],
)
def test_the_name_is_the_last_resort_and_says_so(tmp_path: Path, caplog, name: str, lower_case: bool):
    assert read_options(tmp_path, name=name).lower_case is lower_case
    assert "guess from its name" in caplog.text


@pytest.mark.parametrize(
    ("text", "message"), [("{", "not JSON"), ("[]", "JSON object"), ('{"do_lower_case": 1}', "true or false")]
)
def test_bad_configuration_is_an_error(tmp_path: Path, text: str, message: str):
    (tmp_path / "tokenizer_config.json").write_text(text)
    with pytest.raises(CheckpointError, match=message):
        read_options(tmp_path)


@pytest.mark.parametrize(
    "options",
    [
        {"dialect": "google"},
        {"allow_special_tokens": "[MASK]"},
        {"allow_special_tokens": {"mask"}},
        {"dialect": "tf_text", "strip_accents": False},
        {"dialect": "tf_text", "allow_special_tokens": {"[MASK]"}},
    ],
)
def test_unknown_options_are_refused(options: dict):
    with pytest.raises(ValueError):
        TextOptions(**options)


REPEATS = {
    "two_empty": (["cat", "dog", "sat", "", "", "mat"], [5, 10, 6]),
    "dup_word": (["cat", "dog", "sat", "cat", "mat"], [8, 9, 6]),
    "dup_unused": (["[unused]"] * 3 + ["cat", "mat", "dog"], [8, 9, 10]),
    "special_again": (["cat", "[SEP]", "mat", "dog"], [5, 7, 8]),
    "continuation": (["cat", "m", "##at", "dog", "##at"], [5, 6, 9, 8]),
}


@pytest.mark.parametrize("case", REPEATS)
@pytest.mark.parametrize("dialect", ["bert", "tf_text"])
def test_of_equal_lines_the_last_counts(case: str, dialect: str, tmp_path: Path):
    """As in Google's load_vocab and in transformers; in the graph as on the host."""
    from tfbert_npu import BertPreprocessor, BertTokenizer

    lines, expected = REPEATS[case]
    (tmp_path / "vocab.txt").write_text(SPECIAL + "[MASK]\n" + "\n".join(lines) + "\n")
    with pytest.warns(UserWarning, match="the last of such lines counts"):
        tokenizer = BertTokenizer.from_pretrained(tmp_path, dialect=dialect)
    assert tokenizer.encode("cat mat dog") == expected
    sep = tokenizer.vocabulary.sep_id
    assert sep == (6 if case == "special_again" else 3)
    with pytest.warns(UserWarning, match="Keep them"):
        layer = BertPreprocessor.from_pretrained(tmp_path, seq_length=8, dialect=dialect)
    ids = np.asarray(layer(np.array(["cat mat dog"], object))["input_word_ids"])[0]
    assert ids.tolist()[: len(expected) + 2] == [2, *expected, sep]
