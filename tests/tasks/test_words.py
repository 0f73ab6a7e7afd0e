"""Words of a text: their pieces are the tokenizer's, their places the user's; windows lose nothing."""

import itertools
import json

import pytest
import tiny_bert
from hypothesis import given
from hypothesis import strategies as st

from tfbert_npu import BertTokenizer
from tfbert_npu.tasks.words import centre_most, given_words, windows, words_of

TOKENIZER = tiny_bert.tokenizer()


@given(st.text(st.characters(codec="utf-8"), max_size=60))
def test_pieces_of_the_parts_are_pieces_of_the_whole(text):
    words = words_of(TOKENIZER, text)
    assert [i for word in words for i in word.ids] == TOKENIZER.encode(text)
    ends = [0]
    for word in words:
        assert ends[-1] <= word.start < word.end <= len(text)
        assert tuple(TOKENIZER.encode(text[word.start : word.end])) == word.ids
        ends.append(word.end)


@pytest.mark.parametrize(
    "name",
    ["bert-base-uncased", "bert-base-cased", "bert-base-chinese", "bert-base-multilingual-cased"],
)
def test_golden_texts(shared, name):
    tokenizer = BertTokenizer.from_pretrained(
        shared / "data/vocab" / name, lower_case=name == "bert-base-uncased"
    )
    lines = (shared / f"data/tok/golden_{name}_dev.jsonl").read_text(encoding="utf-8").splitlines()
    for row in map(json.loads, lines):
        if row["google_agrees"]:
            assert [i for word in words_of(tokenizer, row["text"]) for i in word.ids] == row["ids"][1:-1], (
                row["text"]
            )


def test_places():
    text = "Anna ran\u00a0in  Paris, (猫)!"
    places = [(text[w.start : w.end], w.start) for w in words_of(TOKENIZER, text)]
    assert places == [
        ("Anna", 0), ("ran", 5), ("in", 9), ("Paris", 13), (",", 18), ("(", 20), ("猫", 21), (")", 22), ("!", 23),
    ]  # fmt: skip


def test_given_words_have_a_piece_each():
    words = given_words(TOKENIZER, ["anna", "", "xy"])
    assert [len(word.ids) for word in words] == [1, 1, 2]
    assert words[1].ids == (TOKENIZER.vocabulary.unk_id,)


@given(st.lists(st.integers(1, 9), max_size=40), st.integers(1, 20), st.integers(0, 19))
def test_windows_cover_everything(sizes, room, overlap):
    if overlap >= room:
        with pytest.raises(ValueError, match="needs a room of more"):
            windows(sizes, room, overlap)
        return
    ranges = windows(sizes, room, overlap)
    assert sorted({item for start, end in ranges for item in range(start, end)}) == list(range(len(sizes)))
    for start, end in ranges:
        assert sum(sizes[start:end]) <= room or end - start == 1
    for (first, end), (second, _) in itertools.pairwise(ranges):
        assert first < second <= end
        assert sum(sizes[second:end]) <= overlap
    chosen = centre_most(ranges, len(sizes))
    for item, number in enumerate(chosen):
        assert ranges[number][0] <= item < ranges[number][1]


def test_the_middle_of_a_window_counts():
    assert centre_most([(0, 6), (3, 9)], 9) == [0, 0, 0, 0, 0, 1, 1, 1, 1]
