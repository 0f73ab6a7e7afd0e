"""Features: packed ids are the tokenizer's, labels sit on the right pieces."""

from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import tiny_bert
from hypothesis import given
from hypothesis import strategies as st

from tfbert_npu.tasks.answers import question_windows
from tfbert_npu.tasks.examples import ChoiceExample, QuestionExample, TaggedExample, TextExample
from tfbert_npu.train.data_options import DataOptions, TaskName
from tfbert_npu.train.features import (
    IGNORED,
    answer_places,
    choice_feature,
    question_features,
    tagged_features,
    text_feature,
)
from tfbert_npu.train.kinds import make_task

TOKENIZER = tiny_bert.tokenizer()
IDS = TOKENIZER.vocabulary.ids


def pieces(ids):
    return [TOKENIZER.vocabulary.tokens[i] for i in ids]


def test_texts_and_pairs_are_packed_as_the_tokenizer_packs():
    example = TextExample("the cat sat", "a dog ran", "b")
    feature = text_feature(TOKENIZER, example, {"a": 0, "b": 1}, 8)
    packed = TOKENIZER(["the cat sat"], ["a dog ran"], 8)
    assert feature.ids == packed["input_word_ids"][0].tolist()
    assert feature.types == packed["input_type_ids"][0].tolist()
    assert feature.label == 1
    assert text_feature(TOKENIZER, TextExample("cat"), None, 8).ids == [
        IDS["[CLS]"],
        IDS["cat"],
        IDS["[SEP]"],
    ]


def test_labels():
    names = {"a": 0, "b": 1, "c": 2}
    assert text_feature(TOKENIZER, TextExample("x", None, ("c", "a")), names, 8).label == (1.0, 0.0, 1.0)
    assert text_feature(TOKENIZER, TextExample("x", None, 2.5), None, 8).label == 2.5
    with pytest.raises(ValueError, match=r"label 'd' of 'x' is none of the 3 labels \(a, b, c\)"):
        text_feature(TOKENIZER, TextExample("x", None, "d"), names, 8)


def test_choices_share_the_text():
    feature = choice_feature(TOKENIZER, ChoiceExample("the cat", ("sat", "ran in"), 1), 16)
    assert pieces(feature.ids[0]) == ["[CLS]", "the", "cat", "[SEP]", "sat", "[SEP]"]
    assert pieces(feature.ids[1]) == ["[CLS]", "the", "cat", "[SEP]", "ran", "in", "[SEP]"]
    assert feature.length == 7


def test_the_first_piece_bears_the_words_tag():
    example = TaggedExample(("Anna", "Xy", "\x00", "ran"), ("B-PER", "I-PER", "O", "O"))
    (feature,) = tagged_features(TOKENIZER, example, {"O": 0, "B-PER": 1, "I-PER": 2}, 16)
    # A word that the tokenizer deletes keeps a place, or its tag would be lost.
    assert pieces(feature.ids) == ["[CLS]", "anna", "x", "##y", "[UNK]", "ran", "[SEP]"]
    assert feature.label == [IGNORED, 1, 2, IGNORED, 0, 0, IGNORED]


@given(st.lists(st.sampled_from(["cat", "xyz", "anna", "qqqqqqqqqq"]), min_size=1, max_size=30))
def test_long_sentences_lose_no_tag(words):
    tags = [str(index) for index in range(len(words))]
    label2id = {tag: int(tag) for tag in tags}
    features = list(tagged_features(TOKENIZER, TaggedExample(tuple(words), tuple(tags)), label2id, 10))
    assert all(len(feature.ids) == len(feature.label) <= 10 for feature in features)
    assert [label for f in features for label in f.label if label != IGNORED] == list(range(len(words)))


def test_as_many_tags_as_words():
    with pytest.raises(ValueError, match="2 words but 1 tags"):
        list(tagged_features(TOKENIZER, TaggedExample(("a", "b"), ("O",)), {"O": 0}, 8))


CONTEXT = "the cat sat in berlin. anna ran, the dog sat in paris; who?"


def test_question_labels_point_at_the_answer():
    example = QuestionExample("1", "who ran?", CONTEXT, (("anna", CONTEXT.index("anna")),))
    (feature,) = question_features(TOKENIZER, example, 64, 8)
    assert feature.label["start_logits"] == feature.label["end_logits"]
    assert pieces([feature.ids[feature.label["start_logits"]]]) == ["anna"]
    assert feature.types[feature.label["start_logits"]] == 1


@given(st.integers(0, len(CONTEXT) - 1), st.integers(1, 12), st.integers(14, 40), st.integers(0, 6))
def test_a_window_holds_the_whole_answer_or_says_no(start, length, seq_length, stride):
    text = CONTEXT[start : start + length]
    if not text.strip():
        return
    found = 0
    for window in question_windows(TOKENIZER, "who?", CONTEXT, seq_length=seq_length, stride=stride):
        assert len(window.ids) == len(window.types) <= seq_length
        first, last = answer_places(window, [(text, start)])
        if (first, last) != (0, 0):
            found += 1
            words = {place: word for word, place in zip(window.words, window.places, strict=True)}
            begin = next(word for place, word in words.items() if place[0] == first)
            end = next(word for place, word in words.items() if place[1] == last)
            trimmed_start = start + len(text) - len(text.lstrip())
            assert begin.start <= trimmed_start < begin.end
            assert end.start < start + len(text.rstrip()) <= end.end
    if seq_length >= 40:
        assert found


def test_no_answer_is_the_first_token():
    (feature,) = question_features(TOKENIZER, QuestionExample("1", "who?", "the cat"), 32, 8)
    assert feature.label == {"start_logits": 0, "end_logits": 0}
    with pytest.raises(ValueError, match="no room for a context"):
        question_windows(TOKENIZER, "who ran in paris?", CONTEXT, seq_length=8)


def test_answers_of_real_data_are_found_again(shared):
    from tfbert_npu import BertTokenizer
    from tfbert_npu.tasks.metrics import squad_metrics
    from tfbert_npu.tasks.readers import read_squad

    tokenizer = BertTokenizer.from_pretrained(
        shared / "data/vocab/bert-base-multilingual-cased", lower_case=False
    )
    for name in ("xquad.en.dev.json", "xquad.zh.dev.json"):
        expected, found = [], []
        for example in list(read_squad(shared / "data/qa/xquad" / name))[::7]:
            texts = set()
            for window in question_windows(tokenizer, example.question, example.context):
                first, last = answer_places(window, example.answers[:1])
                if first:
                    starts = {place[0]: w.start for w, place in zip(window.words, window.places, strict=True)}
                    ends = {place[1]: w.end for w, place in zip(window.words, window.places, strict=True)}
                    texts.add(example.context[starts[first] : ends[last]])
            expected.append([example.answers[0][0]])
            found.append(sorted(texts)[0] if texts else "")
        # What training can reach at most: an answer that ends inside of a word, such as 70 of "70-year", is
        # not a whole number of words.
        assert squad_metrics(expected, found)["exact_match"] > 0.95
    assert np.mean([bool(text) for text in found]) == 1


def test_every_task_has_the_head_of_the_table() -> None:
    options = DataOptions(Path("data.csv"), pair_column="other", choice_columns=("a", "b"))
    for name in get_args(TaskName):
        task = make_task(name, options, tiny_bert.tokenizer(), 16)
        assert name in task.spec.commands
        assert task.head.spec is task.spec
