from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

SMALL = (
    "[PAD] [UNK] [CLS] [SEP] [MASK] want ##want ##ed wa un runn ##ing , . ! the a ##a b ##b e ##e o c ##c s "
    "##s é ##é ς ##ς σ ##σ 博 ##博 推 ʰ ##ʰ [ ] ᄀ ##ᅡ \u0301"
)


@pytest.fixture(scope="session")
def vocabulary_directory(shared: Path) -> Callable[[str], Path]:
    return lambda name: shared / "data" / "vocab" / name


@pytest.fixture(scope="session")
def golden(shared: Path) -> Callable[[str], list[dict]]:
    def read(name: str) -> list[dict]:
        text = (shared / "data" / "tok" / name).read_text(encoding="utf-8")
        return (
            [json.loads(line) for line in text.split("\n") if line]
            if name.endswith("l")
            else json.loads(text)
        )

    return read


@pytest.fixture
def small_model(tmp_path: Path) -> Path:
    """A model directory with a small vocabulary that needs no shared data."""
    (tmp_path / "vocab.txt").write_text(SMALL.replace(" ", "\n") + "\n", encoding="utf-8")
    (tmp_path / "tokenizer_config.json").write_text('{"do_lower_case": true}', encoding="utf-8")
    return tmp_path
