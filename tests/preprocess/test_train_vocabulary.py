from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tfbert_npu.preprocess import BertTokenizer, TextOptions
from tfbert_npu.preprocess.training import train_vocabulary

TEXTS = [
    "Der Wanderer wandert im Wald.",
    "Wälder, Wanderungen [SEP] und Wanderlieder!",
    "wandern ΑΣ Straße",
] * 3


@pytest.mark.parametrize("lower_case", [True, False])
def test_the_pieces_spell_the_text(lower_case: bool):
    options = TextOptions(lower_case=lower_case)
    vocabulary = train_vocabulary(TEXTS, size=120, options=options)
    assert vocabulary.tokens[:5] == ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
    assert len(vocabulary) <= 120
    tokenizer = BertTokenizer(vocabulary, options)
    ids = [piece for text in TEXTS for piece in tokenizer.encode(text)]
    assert min(ids) >= 5, "no word of the text is unknown, and none is a control token"
    word = "wander" if lower_case else "Wander"
    assert word in vocabulary.ids, "a frequent stem is one piece"
    assert ("W" in vocabulary.ids) is not lower_case
    assert ("ς" in vocabulary.ids or "##ς" in vocabulary.ids) is lower_case
    for _ in range(5):
        assert train_vocabulary(TEXTS, size=120, options=options) == vocabulary


def test_rare_characters_and_joins_are_left_out():
    texts = ["aaa aaa bbb bbb"] * 5 + ["ab zz"]
    vocabulary = train_vocabulary(texts, size=100, alphabet_size=2, min_frequency=3)
    assert set(vocabulary.tokens[5:]) <= {"a", "b", "##a", "##b", "aa", "bb", "##aa", "##bb", "aaa", "bbb"}
    assert {"aaa", "bbb"} <= set(vocabulary.tokens)
    assert "z" not in vocabulary.ids


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"texts": []}, "no words"),
        ({"texts": [" ", "\u200b"]}, "no words"),
        ({"texts": TEXTS, "size": 5}, "size=5"),
        ({"texts": TEXTS, "size": 40}, "size=40 is too small for the .* lower alphabet_size"),
        ({"texts": TEXTS, "min_frequency": 0}, "min_frequency=0"),
        ({"texts": TEXTS, "options": TextOptions("tf_text")}, "dialect"),
    ],
)
def test_impossible_training_is_refused(arguments: dict, message: str):
    with pytest.raises(ValueError, match=message):
        train_vocabulary(**arguments)


def run(*arguments: object, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-m", "tfbert_npu", "vocab", *map(str, arguments)]
    return subprocess.run(command, input=stdin, capture_output=True, check=False)


def test_the_command(tmp_path: Path):
    (tmp_path / "texts.txt").write_text("\n".join(TEXTS), encoding="utf-8")
    out = tmp_path / "new" / "model"
    done = run(tmp_path / "texts.txt", "--out", out, "--size", 90, "--cased", "--json")
    assert done.returncode == 0, done.stderr
    tokenizer = BertTokenizer.from_pretrained(out)
    assert not tokenizer.options.lower_case
    assert json.loads(done.stdout)["pieces"] == len(tokenizer.vocabulary) <= 90
    assert tokenizer.vocabulary == train_vocabulary(TEXTS, size=90, options=TextOptions(lower_case=False))
    assert sorted(path.name for path in out.iterdir()) == ["tokenizer_config.json", "vocab.txt"]

    before = (out / "vocab.txt").read_bytes()
    again = run(tmp_path / "texts.txt", "--out", out)
    assert again.returncode == 1
    assert b"exists" in again.stderr
    assert (out / "vocab.txt").read_bytes() == before


def test_a_bad_text_file_leaves_nothing(tmp_path: Path):
    done = run("-", "--out", tmp_path / "model", stdin=b"fine\nb\xffd\n")
    assert done.returncode == 1
    assert done.stderr.decode().strip().count("\n") == 0
    assert "standard input, line 2" in done.stderr.decode()
    assert not (tmp_path / "model").exists()
    assert run(tmp_path / "absent.txt", "--out", tmp_path / "model").returncode == 1
    assert run("-", "--out", tmp_path / "model", "--size", "3").returncode == 2
