"""What a type checker tells a user of the package about its public names, which load lazily."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import tfbert_npu
from tests.contracts import copy_package

pytest.importorskip("mypy")

PROGRAM = """
from typing import Any
import numpy as np
import tfbert_npu
from tfbert_npu import BertConfig, BertEncoder, BertForSequenceClassification, BertTokenizer, SentenceEncoder
from tfbert_npu import Vocabulary, export_onnx, load_npu, tasks

config = BertConfig(hidden_size=8)
size: int = config.hidden_size
encoder: BertEncoder = BertEncoder(config)
head = BertForSequenceClassification(config, labels=["bad", "good"])
tokenizer = BertTokenizer(Vocabulary(("[PAD]", "[UNK]", "[CLS]", "[SEP]")))
vectors: np.ndarray = SentenceEncoder(encoder, tokenizer).encode(["a"])
name: str = export_onnx(encoder, "a.onnx").name
with load_npu("artifact", "onnx") as npu:
    npu.stats()
with tasks.load("artifact", "classify", backend="onnx") as model:
    label: str = tasks.classify(model, "a text")[0][0].label
    score: float = tasks.classify(model, tokenizer, ["a text"], seq_length=12)[0][0].score
    word: str = tasks.ner(model, ["a text"])[0][0].word
    best: int = tasks.rerank(model, "a query", ["a text"], top_k=1)[0].index
"""
WRONG = {
    'tfbert_npu.BertConfig(hidden_size="8")': "arg-type",
    "tfbert_npu.BertTokenizer(vocab=1)": "call-arg",
    'tfbert_npu.load_npu("a", "cuda")': "arg-type",
    'tfbert_npu.BertTokenizer.from_pretrained("a")("b", max_length=3)': "arg-type",
    'tasks.classify(tasks.load("a"), "b", top_k=3)': "call-overload",
    'tasks.ner(tasks.load("a"), "b")[0][0].no_such_attribute': "attr-defined",
    'tfbert_npu.SentenceEncoder.from_pretrained("a").encode("b").no_such_attribute': "attr-defined",
}


def check(folder: Path, program: str) -> str:
    (folder / "program.py").write_text(program)
    command = [sys.executable, "-m", "mypy", "--ignore-missing-imports", "--follow-imports=silent"]
    result = subprocess.run(
        [*command, "--show-error-codes", "program.py"],
        cwd=folder,
        env={**os.environ, "MYPYPATH": str(folder)},
        capture_output=True,
        text=True,
        check=False,
    )
    return result.stdout + result.stderr


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("installed")
    copy_package(folder)
    return folder


def test_a_right_program_passes(installed: Path) -> None:
    assert check(installed, PROGRAM).startswith("Success")


def test_wrong_calls_are_found(installed: Path) -> None:
    found = check(
        installed,
        "import tfbert_npu\nfrom tfbert_npu import tasks\n" + "".join(line + "\n" for line in WRONG),
    )
    for number, (line, code) in enumerate(WRONG.items(), start=3):
        assert f"program.py:{number}: error" in found, line
        assert f"[{code}]" in found, found


def test_every_public_name_has_a_type(installed: Path) -> None:
    names = [name for name in tfbert_npu.__all__ if name != "__version__"]
    program = "import tfbert_npu\n" + "".join(f"reveal_type(tfbert_npu.{name})\n" for name in names)
    found = check(installed, program)
    assert 'Revealed type is "Any"' not in found, found
    assert found.count("Revealed type") == len(names), found
