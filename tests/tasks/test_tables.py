"""Parquet and directories of `datasets`: the rows that the library itself gives, with names for classes."""

import pytest
from click.testing import CliRunner

from tfbert_npu.cli import cli
from tfbert_npu.errors import MissingExtraError
from tfbert_npu.tasks import tables
from tfbert_npu.tasks.conll import read_conll
from tfbert_npu.tasks.examples import QuestionExample, TaggedExample, TextExample
from tfbert_npu.tasks.readers import read_squad, read_texts
from tfbert_npu.tasks.text_files import DataError

datasets = pytest.importorskip("datasets")


@pytest.fixture(params=["file.parquet", "directory"])
def write(request, tmp_path):
    """Writes a data set in one of the two forms; gives its path."""

    def write_(columns, **features):
        made = datasets.Dataset.from_dict(columns)
        for name, feature in features.items():
            made = made.cast_column(name, feature)
        path = tmp_path / request.param
        made.to_parquet(path) if path.suffix else made.save_to_disk(path)
        return path

    return write_


def test_texts_with_named_classes(write):
    path = write(
        {"other": [1, 2], "text": ["the cat", "a dog"], "label": [1, 0]},
        label=datasets.ClassLabel(names=["bad", "good"]),
    )
    assert list(read_texts(path)) == [TextExample("the cat", None, "good"), TextExample("a dog", None, "bad")]


def test_numbers_and_lists_of_labels(write):
    path = write({"text": ["x", "y"], "label": [1.5, -2.0]})
    assert [example.label for example in read_texts(path, kind="number")] == [1.5, -2.0]
    path = write(
        {"text": ["x", "y"], "label": [[0, 1], []]},
        label=datasets.Sequence(datasets.ClassLabel(names=["a", "b"])),
    )
    assert [example.label for example in read_texts(path, kind="classes")] == [("a", "b"), ()]


def test_entities(write):
    path = write(
        {"tokens": [["anna", "ran"]], "ner_tags": [[1, 0]]},
        ner_tags=datasets.Sequence(datasets.ClassLabel(names=["O", "B-PER"])),
    )
    assert list(read_conll(path)) == [TaggedExample(("anna", "ran"), ("B-PER", "O"))]
    path = write({"tokens": [["anna", "ran"]], "ner_tags": [["O"]]})
    with pytest.raises(DataError, match="row 1 has 2 words but 1 tags"):
        list(read_conll(path))


def test_questions(write):
    answers = [{"text": ["anna"], "answer_start": [0]}, {"text": [], "answer_start": []}]
    path = write(
        {"id": ["a", "b"], "question": ["who?", "why?"], "context": ["anna ran"] * 2, "answers": answers}
    )
    assert list(read_squad(path)) == [
        QuestionExample("a", "who?", "anna ran", (("anna", 0),), "anna ran"),
        QuestionExample("b", "why?", "anna ran", (), "anna ran"),
    ]


def test_what_is_wrong_is_one_sentence(write, tmp_path, monkeypatch):
    path = write({"sentence": ["x"], "label": [-1]}, label=datasets.ClassLabel(names=["a"]))
    with pytest.raises(DataError, match="has no column 'text'; it has 'sentence', 'label'"):
        list(read_texts(path))
    with pytest.raises(DataError, match="row 1 has the class -1, but there are 1"):
        list(read_texts(path, "sentence"))
    monkeypatch.setattr(
        tables, "require", lambda name, extra: (_ for _ in ()).throw(MissingExtraError(f"{name} {extra}"))
    )
    with pytest.raises(MissingExtraError, match=r"pyarrow\.parquet data"):
        list(read_texts(path))


def test_other_directories_and_damaged_files(tmp_path):
    (tmp_path / "a.parquet").write_bytes(b"PAR1" + bytes(40) + b"PAR1")
    with pytest.raises(DataError, match=r"a\.parquet is damaged"):
        list(read_texts(tmp_path / "a.parquet"))
    with pytest.raises(FileNotFoundError):
        list(read_texts(tmp_path / "b.parquet"))
    with pytest.raises(DataError, match=r"is no directory that Dataset\.save_to_disk wrote"):
        list(read_texts(tmp_path))
    part = datasets.Dataset.from_dict({"text": ["x"], "label": ["a"]})
    datasets.DatasetDict(train=part, test=part).save_to_disk(tmp_path / "both")
    with pytest.raises(DataError, match=r"several splits; give one of .*both/train, .*both/test"):
        list(read_texts(tmp_path / "both"))
    assert list(read_texts(tmp_path / "both" / "test")) == [TextExample("x", None, "a")]


def test_the_command_takes_a_directory(tmp_path):
    """click itself refuses directories where an option says so."""
    result = CliRunner().invoke(cli, ["evaluate", "classify", "model", "--data", str(tmp_path)])
    assert isinstance(result.exception, DataError)
