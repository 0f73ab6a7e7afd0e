"""Ids held against Google's and Hugging Face's, as recorded."""

from __future__ import annotations

import numpy as np
import pytest

from tfbert_npu.preprocess import BertPreprocessor, BertTokenizer

VOCABULARIES = ("bert-base-uncased", "bert-base-cased", "bert-base-multilingual-cased", "bert-base-chinese")


@pytest.mark.parametrize("name", VOCABULARIES)
def test_ids_are_googles(name: str, vocabulary_directory, golden):
    rows = golden(f"golden_{name}_dev.jsonl")
    tokenizer = BertTokenizer.from_pretrained(vocabulary_directory(name))
    ids = tokenizer.vocabulary.ids
    wanted = [
        row["ids"] if row["google_agrees"] else [ids[token] for token in row["google_tokens"]] for row in rows
    ]
    texts = [row["text"] for row in rows]
    assert [[ids["[CLS]"], *tokenizer.encode(text), ids["[SEP]"]] for text in texts] == wanted

    width = max(map(len, wanted))
    packed = BertPreprocessor.from_pretrained(vocabulary_directory(name), width)(texts)
    assert [
        row[: len(want)] for row, want in zip(packed["input_word_ids"].numpy().tolist(), wanted, strict=True)
    ] == wanted
    np.testing.assert_array_equal(packed["input_mask"].numpy().sum(1), [len(want) for want in wanted])


@pytest.mark.parametrize("max_length", [16, 64])
def test_pairs_are_trimmed_as_recorded(max_length: int, vocabulary_directory, golden):
    rows = [r for r in golden("golden_pairs_bert-base-uncased_dev.jsonl") if r["max_length"] == max_length]
    assert {row["strategy"] for row in rows} == {"longest_first"}
    first, second = [row["a"] for row in rows], [row["b"] for row in rows]
    directory = vocabulary_directory("bert-base-uncased")
    host = BertTokenizer.from_pretrained(directory)(first, second, max_length, trimming="longest_first")
    graph = BertPreprocessor.from_pretrained(directory, max_length, trimming="longest_first")([first, second])
    for ours, theirs in (("word_ids", "ids"), ("type_ids", "type_ids"), ("mask", "attention_mask")):
        wanted = [row[theirs] for row in rows]
        assert host[f"input_{ours}"].tolist() == wanted
        assert graph[f"input_{ours}"].numpy().tolist() == wanted
