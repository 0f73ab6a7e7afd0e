"""Readers: what they read, and the one sentence they say of a file that is damaged."""

import gzip
import json

import pytest

from tfbert_npu.tasks.conll import read_conll
from tfbert_npu.tasks.examples import QuestionExample, TaggedExample, TextExample
from tfbert_npu.tasks.readers import (
    read_choices,
    read_copa,
    read_lines,
    read_squad,
    read_texts,
)
from tfbert_npu.tasks.text_files import DataError
from tfbert_npu.train.tasks import sort_names


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
        ("a.csv", "text,\rx,label\n", r"line .: .*correct the quotes"),
        ("a.csv", "", r"has no column 'text', 'label'; it has none"),
        ("a.csv", "text,label\nx,y,z\n", r"line 2: expected 2 columns \(text, label\)"),
        ("a.csv", "text,label\nx\n", r"line 2: expected 2 columns"),
        ("a.csv", 'text,label\n"x,y\n', r"line 2: .*correct the quotes"),
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


@pytest.mark.parametrize(
    ("name", "rows"), [("both_ends", 2), ("opening_then_text", 2), ("lone_opening", 3), ("two_openings", 3)]
)
def test_tsv_as_glue_writes_it(shared, name, rows):
    path = shared / "cases" / "tsv" / f"{name}.tsv"
    lines = path.read_text(encoding="utf-8").splitlines()[1:]
    examples = list(read_texts(path))
    assert len(examples) == rows
    assert [f"{example.text}\t{example.label}" for example in examples] == lines


def test_tsv_siblings(tmp_path):
    path = write(tmp_path / "a.tsv", 'label\ttext\r\n1\t"\r\n\n2\tone "word" here\n3\t\u2028x\u0085y\rz\n')
    assert [e.text for e in read_texts(path)] == ['"', 'one "word" here', "\u2028x\u0085y\rz"]
    with pytest.raises(DataError, match="line 2: expected 2 columns"):
        list(read_texts(write(tmp_path / "b.tsv", 'text\tlabel\n"a\tb"\tc\n')))


@pytest.mark.parametrize("mark", [",", ";", "\t", "|"])
def test_csv_delimiters(tmp_path, mark):
    path = write(tmp_path / "a.csv", f'text{mark}label\n"a{mark}b"{mark}yes\n')
    assert list(read_texts(path)) == [TextExample(f"a{mark}b", None, "yes")]
    other = write(tmp_path / "a.txt", "text:label\nx:y\n")
    assert list(read_texts(other, delimiter=":")) == [TextExample("x", None, "y")]


def test_gzip(tmp_path):
    (tmp_path / "a.csv.gz").write_bytes(gzip.compress(b"text,label\nx,y\n"))
    assert list(read_texts(tmp_path / "a.csv.gz")) == [TextExample("x", None, "y")]
    whole = gzip.compress(b"text,label\nx,y\n")
    for damaged in (whole[:-9], whole[:12] + b"\xff\xff" + whole[14:]):
        (tmp_path / "b.csv.gz").write_bytes(damaged)
        with pytest.raises(DataError, match="damaged gzip"):
            list(read_texts(tmp_path / "b.csv.gz"))
    (tmp_path / "b.csv.gz").write_bytes(b"text,label\n")
    with pytest.raises(DataError, match="damaged gzip"):
        list(read_texts(tmp_path / "b.csv.gz"))


def test_numbers_sort_as_numbers():
    assert sort_names({"10", "9", "-1", "2"}) == ("-1", "2", "9", "10")
    assert sort_names({"0.5", "10", "2"}) == ("0.5", "2", "10")
    assert sort_names({"10", "9", "b"}) == ("10", "9", "b")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"text": "x", "label": "a"}\n{"text": "\xff"}\n', "line 2 is not UTF-8"),
        (b"[" * 100_000, "line 1 cannot be read as JSON"),
        (b'{"text": null, "label": 1}', "line 1: text must be a text, got None"),
        (b'{"text": ["x"], "label": 1}', "line 1: text must be a text"),
        (b'{"text": "\\ud800", "label": 1}', "line 1: text holds half of a surrogate pair"),
        (b'{"text": "x", "label": {"a": 1}}', "line 1: label must be a text"),
        (b'{"text": "x", "label": ' + b"9" * 5000 + b"}", "line 1 cannot be read as JSON"),
    ],
)
def test_hostile_json_lines(tmp_path, content, message):
    (tmp_path / "a.jsonl").write_bytes(content)
    with pytest.raises(DataError, match=rf"a\.jsonl {message}"):
        list(read_texts(tmp_path / "a.jsonl"))


def test_a_number_too_large(tmp_path):
    path = write(tmp_path / "a.jsonl", '{"text": "x", "label": 1' + "0" * 400 + "}")
    with pytest.raises(DataError, match="finite number"):
        list(read_texts(path, kind="number"))


def test_conll_separators_are_ascii(tmp_path):
    path = write(tmp_path / "a", "New\u00a0York B-LOC\n\u3000 O\n\u2028x \t O\n")
    assert list(read_conll(path)) == [
        TaggedExample(("New\u00a0York", "\u3000", "\u2028x"), ("B-LOC", "O", "O"))
    ]


CONLL = {
    "comments (CoNLL-U)": "# text = a\n# id 3\tdomain=en\n1\tAnna\tB-PER\n2\t#\tO\n",
    "comment first, spaces (MultiCoNER)": "# id 52\tdomain=train\nAnna _ _ B-PER\n# _ _ O\n",
    "Label Studio": "-DOCSTART- -X- O\nAnna -X- _ B-PER\n# -X- _ O\n",
    "GermEval": "#\thttp://a.de [2010]\n1\tAnna\tB-PER\tO\n2\t#\tO\tB-LOC\n",
    "CoNLL-2003": "-DOCSTART- -X- -X- O\n\nAnna NNP B-NP B-PER\n# NN O O\n",
}


@pytest.mark.parametrize("form", CONLL)
def test_conll_as_found(tmp_path, form):
    path = write(tmp_path / "a", CONLL[form])
    assert list(read_conll(path)) == [TaggedExample(("Anna", "#"), ("B-PER", "O"))]


def test_conll_hash_words(tmp_path):
    path = write(tmp_path / "a", "#tag\tO\nx\tO\n\n#\tO\n\n# B-X\n")
    assert [e.words for e in read_conll(path)] == [("#tag", "x"), ("#",)]


def test_conll_columns(tmp_path, shared):
    path = shared / "cases" / "conll" / "tag_first.conll"
    with pytest.raises(DataError, match="--word-column and --tag-column"):
        list(read_conll(path))
    assert list(read_conll(path, 1, 0)) == [TaggedExample(("Hello", "Anna"), ("O", "B-PER"))]
    with pytest.raises(DataError, match="no column 2"):
        list(read_conll(path, 2, 0))
    (tmp_path / "b").write_bytes(b"Anna O\n\xffx O\n")
    with pytest.raises(DataError, match="line 2 is not UTF-8"):
        list(read_conll(tmp_path / "b"))


def test_conll(tmp_path):
    path = write(tmp_path / "a", "-DOCSTART-\tX\n\nAnna\tB-PER\nran\tO\n\t\nin\tO\nNew York\tB-LOC")
    assert list(read_conll(path)) == [
        TaggedExample(("Anna", "ran"), ("B-PER", "O")),
        TaggedExample(("in", "New York"), ("O", "B-LOC")),
    ]


def test_ragged_conll(tmp_path):
    with pytest.raises(ValueError, match="line 2: 1 columns where the first word's line has 2"):
        list(read_conll(write(tmp_path / "a", "Anna B-PER\nran\n")))
    with pytest.raises(ValueError, match="line 1: expected a word and its label"):
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
        with pytest.raises(DataError, match=r"no SQuAD file|is not JSON"):
            list(read_squad(write(tmp_path / "b.json", content)))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"question": 3.5}, "the question 7 must be a text"),
        ({"question": None}, "the question 7 must be a text"),
        ({"question": ["x"]}, "the question 7 must be a text"),
        ({"answers": [{"text": "Anna", "answer_start": float("inf")}]}, "must be an index of its context"),
        ({"answers": [{"text": "Anna", "answer_start": 10**30}]}, "must be an index of its context"),
        ({"answers": [{"text": "Anna", "answer_start": -9}]}, "must be an index of its context"),
        ({"answers": [{"text": 5, "answer_start": 0}]}, "must be a text"),
        ({"answers": {"text": "Anna"}}, "no SQuAD file"),
        ({"id": {}}, "must be a text"),
    ],
)
def test_hostile_squad(tmp_path, change, message):
    path = write(tmp_path / "a.json", json.dumps(squad(**{"answers": [], **change})))
    with pytest.raises(DataError, match=message):
        list(read_squad(path))


def test_squad_that_nests_too_deep(tmp_path):
    with pytest.raises(DataError, match=r"a\.json cannot be read as JSON"):
        list(read_squad(write(tmp_path / "a.json", "[" * 100_000)))
    (tmp_path / "b.json").write_bytes(b"{\n\xff}")
    with pytest.raises(DataError, match=r"b\.json line 2 is not UTF-8"):
        list(read_squad(tmp_path / "b.json"))


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
