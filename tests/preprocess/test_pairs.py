"""Pairs of texts whose second is empty: Google's rule, and transformers' where it is the same."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import BertTokenizerFast

from tests.preprocess.google_reference import token_ids
from tests.tiny_bert import TOKENS, tokenizer
from tfbert_npu import BertPreprocessor, BertTokenizer
from tfbert_npu.preprocess import TextOptions

OURS = tokenizer()
PREPROCESSOR = BertPreprocessor(OURS.vocabulary, OURS.options, 12, "longest_first")
SECONDS = st.one_of(
    st.sampled_from(["", " ", "\t\n", "\u200b", "\u0000", "the dog", "a" * 40]), st.text(max_size=12)
)
FIRSTS = st.one_of(
    st.sampled_from(["", " ", "the cat sat", "a b c d e f g h i j k l m n"]), st.text(max_size=20)
)


def google(first: str, second: str, length: int = 12) -> tuple[list[int], list[int]]:
    """convert_single_example of google-research/bert's run_classifier.py: ids and types without padding."""
    vocabulary = {token: index for index, token in enumerate(TOKENS)}
    a, b = (list(token_ids(text, vocabulary)) for text in (first, second))
    if not b:
        a = a[: length - 2]
    cls, sep = vocabulary["[CLS]"], vocabulary["[SEP]"]
    ids = [cls, *a, sep, *([*b, sep] if b else [])]
    return ids, [0] * (len(a) + 2) + [1] * (len(ids) - len(a) - 2)


@settings(max_examples=300, deadline=None)
@given(pairs=st.lists(st.tuples(FIRSTS, SECONDS), min_size=1, max_size=8))
def test_pairs_are_google_s_on_the_host_and_in_the_graph(pairs: list[tuple[str, str]]) -> None:
    firsts, seconds = ([pair[side] for pair in pairs] for side in (0, 1))
    host = OURS(firsts, seconds, seq_length=12, trimming="longest_first")
    graph = PREPROCESSOR([firsts, seconds])
    for name, value in host.items():
        np.testing.assert_array_equal(graph[name], value)
    for row, (first, second) in enumerate(pairs):
        ids, types = google(first, second)
        real = host["input_mask"][row] == 1
        if len(ids) > 12:  # how two texts share the room is another test's
            continue
        assert host["input_word_ids"][row][real].tolist() == ids
        assert host["input_type_ids"][row][real].tolist() == types


@pytest.mark.parametrize("second", ["", "the dog", "a"])
def test_single_calls_of_transformers_agree(tmp_path, second: str) -> None:
    (tmp_path / "vocab.txt").write_text("\n".join(TOKENS) + "\n")
    theirs = BertTokenizerFast(str(tmp_path / "vocab.txt"))("the cat", second or None)["input_ids"]
    row = OURS(["the cat"], [second], seq_length=16)
    assert row["input_word_ids"][0][row["input_mask"][0] == 1].tolist() == theirs


def test_tf_hub_closes_an_empty_second_text() -> None:
    hub = BertTokenizer(OURS.vocabulary, TextOptions("tf_text"))
    rows = hub(["the cat"], [""], seq_length=8)
    sep = TOKENS.index("[SEP]")
    assert rows["input_word_ids"][0].tolist().count(sep) == 2
    graph = BertPreprocessor(hub.vocabulary, hub.options, 8)([["the cat"], [""]])
    np.testing.assert_array_equal(graph["input_word_ids"], rows["input_word_ids"])
