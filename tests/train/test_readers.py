"""Readers: what they read, and the one sentence they say of a file that is damaged."""

import json

import pytest

from tfbert_npu.train.examples import QuestionExample, TaggedExample, TextExample
from tfbert_npu.train.readers import (
    read_choices,
    read_conll,
    read_copa,
    read_lines,
    read_squad,
    read_texts,
)


def write(path, text):
    path.write_text(text, encoding="utf-8")
    return path


def test_csv_with_quotes_and_line_breaks(tmp_path):
    path = write(tmp_path / "a.csv", 'text,label\n"one, ""two""\nthree",yes\nfour,no\n')
    assert list(read_texts(path)) == [
        TextExample('one, "two"\nthree', None, "yes"),
        TextExample("four", None, "no"),
    ]


def test_tsv_and_json_lines_say_the_same(tmp_path):
    tsv = write(tmp_path / "a.tsv", "﻿a\tb\tscore\nx\ty\t1.5\n")
    jsonl = write(tmp_path / "a.jsonl", '{"a": "x", "b": "y", "score": 1.5}\n\n')
    for path in (tsv, jsonl):
        assert list(read_texts(path, "a", "b", "score", "number")) == [TextExample("x", "y", 1.5)]


def test_several_labels(tmp_path):
    path = write(tmp_path / "a.jsonl", '{"text": "x", "label": ["a", "b"]}\n{"text": "y", "label": "a|c"}\n')
    assert [e.label for e in read_texts(path, kind="classes")] == [("a", "b"), ("a", "c")]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", "sentence,label\nx,y\n", r"has no column 'text'; it has 'sentence', 'label'"),
        ("a.csv", "", r"has no column 'text', 'label'; it has none"),
        ("a.csv", "text,label\nx,y,z\n", r"line 2: expected 2 columns \(text, label\)"),
        ("a.csv", "text,label\nx\n", r"line 2: expected 2 columns"),
        ("a.csv", 'text,label\n"x,y\n', r"line 2: .*mend the quotes"),
        ("a.csv", "text,label\nx,\n", r"line 2: label is empty"),
        ("a.jsonl", '{"text": 1\n', r"line 1 is not JSON"),
        ("a.jsonl", "[1]\n", r"line 1 must be a JSON object, not a list"),
        ("a.txt", "x", r"none of .csv, .tsv, .jsonl, .ndjson"),
    ],
)
def test_damaged_rows(tmp_path, name, content, message):
    with pytest.raises(ValueError, match=message):
        list(read_texts(write(tmp_path / name, content)))


@pytest.mark.parametrize("value", ["", "high", "nan", "inf"])
def test_regression_wants_finite_numbers(tmp_path, value):
    path = write(tmp_path / "a.csv", f"text,label\nx,{value}\n")
    with pytest.raises(ValueError, match="line 2: label must be a finite number"):
        list(read_texts(path, kind="number"))


def test_a_file_that_is_not_utf8(tmp_path):
    (tmp_path / "a.csv").write_bytes(b"text,label\n\xff,a\n")
    with pytest.raises(ValueError, match="not UTF-8"):
        list(read_texts(tmp_path / "a.csv"))


def test_conll(tmp_path):
    path = write(tmp_path / "a", "-DOCSTART-\tX\n\nAnna\tB-PER\nran\tO\n\t\nin\tO\nNew York\tB-LOC")
    assert list(read_conll(path)) == [
        TaggedExample(("Anna", "ran"), ("B-PER", "O")),
        TaggedExample(("in", "New York"), ("O", "B-LOC")),
    ]


def test_ragged_conll(tmp_path):
    with pytest.raises(ValueError, match="line 2: 1 columns where the lines before have 2"):
        list(read_conll(write(tmp_path / "a", "Anna B-PER\nran\n")))
    with pytest.raises(ValueError, match="line 1: expected a word and its tag"):
        list(read_conll(write(tmp_path / "b", "Anna\n")))


def test_choices(tmp_path):
    path = write(tmp_path / "a.csv", "text,c,d,label\nx,y,z,1\n")
    (example,) = read_choices(path, choice_columns=("c", "d"))
    assert (example.text, example.choices, example.label) == ("x", ("y", "z"), 1)
    for value in ("2", "-1", "y", ""):
        bad = write(tmp_path / "b.csv", f"text,c,d,label\nx,y,z,{value}\n")
        with pytest.raises(ValueError, match="line 2: label must be the index of a choice, 0 to 1"):
            list(read_choices(bad, choice_columns=("c", "d")))
    with pytest.raises(ValueError, match="at least two columns"):
        list(read_choices(path, choice_columns=("c",)))


def test_copa(tmp_path):
    item = (
        '<item id="1" asks-for="cause" most-plausible-alternative="2"><p>P.</p><a1>A.</a1><a2>B.</a2></item>'
    )
    (example,) = read_copa(write(tmp_path / "a.xml", f"<copa-corpus>{item}</copa-corpus>"))
    assert example.text == "P. What was the cause of this?"
    assert (example.choices, example.label) == (("A.", "B."), 1)
    with pytest.raises(ValueError, match="no COPA file"):
        list(read_copa(write(tmp_path / "b.xml", "<copa-corpus><item/></copa-corpus>")))


def squad(answers, **more):
    entry = {"id": "7", "question": "Who?", "answers": answers, **more}
    return {"data": [{"title": "T", "paragraphs": [{"context": "Anna ran.", "qas": [entry]}]}]}


def test_squad(tmp_path):
    path = write(tmp_path / "a.json", json.dumps(squad([{"text": "Anna", "answer_start": 0}])))
    assert list(read_squad(path)) == [QuestionExample("7", "Who?", "Anna ran.", (("Anna", 0),), "T")]
    path.write_text(json.dumps(squad([{"text": "Anna", "answer_start": 0}], is_impossible=True)))
    assert [example.answers for example in read_squad(path)] == [()]


def test_damaged_squad(tmp_path):
    path = write(tmp_path / "a.json", json.dumps(squad([{"text": "Anna", "answer_start": 1}])))
    with pytest.raises(ValueError, match="'Anna' of question 7 is not at character 1"):
        list(read_squad(path))
    for content in ("{", '{"data": [{}]}', "[]"):
        with pytest.raises(ValueError, match="no SQuAD file"):
            list(read_squad(write(tmp_path / "b.json", content)))


def test_lines_keep_empty_ones(tmp_path):
    path = write(tmp_path / "a.txt", "one \n\ntwo")
    assert [example.text for example in read_lines(path)] == ["one", "", "two"]


def test_real_files(shared):
    data = shared / "data"
    assert sum(1 for _ in read_conll(data / "ner/wnut17/wnut17train.conll")) == 3394
    assert sum(1 for _ in read_conll(data / "ner/weibo/weiboNER_2nd_conll.dev")) == 270
    assert sum(1 for _ in read_copa(data / "mc/copa/copa-dev.xml")) == 500
    rows = list(read_texts(data / "cls/banking77/train.csv", label_column="category"))
    assert (len(rows), len({row.label for row in rows})) == (10003, 77)
    assert all(example.answers for example in read_squad(data / "qa/xquad/xquad.zh.dev.json"))
