"""Damaged files through every reader: a result, or one sentence; and what was found before."""

from __future__ import annotations

import io
import logging
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.fuzz.driving import drive, try_one
from tests.fuzz.readers import Reader, readers

INPUTS = 400
NAMES = (
    "vocab", "tokenizer", "tokenizer_config", "special_tokens", "added_tokens", "config", "safetensors",
    "safetensors_index", "saved_model", "manifest", "reference", "rknn", "modules", "pooling", "sentence_config",
    "conll", "csv", "tsv", "json_lines", "squad", "predictions",
)  # fmt: skip

# What escaped once, by the reader.
FOUND = (
    ("added_tokens", b'{"<e>": Infinity}'),
    ("tokenizer", b'{"model": {"type": "WordPiece", "vocab": [0, 10000000000000000000000000000000000000000]}}'),
    ("safetensors_index", b'{"weight_map": {"a": [[]], "b": "one.safetensors"}}'),
    ("safetensors_index", b'{"weight_map": {"a": "one.safetensors\\u0000", "b": "\\ud800"}}'),
    ("modules", b'[{"path": "/dev/zero", "type": "sentence_transformers.models.Pooling"}]'),
    ("modules", b'[{"path": "\\ud800", "type": "sentence_transformers.models.Pooling"}]'),
    ("modules", b'[{"path": "' + b"x" * 300 + b'", "type": "sentence_transformers.models.Pooling"}]'),
    ("sentence_config", b'{"default_prompt_name": {"a": 1}}'),
    ("sentence_config", b'{"prompts": [null], "default_prompt_name": {}}'),
    ("sentence_config", b'{"truncate_dim": "x"}'),
    ("special_tokens", b'{"unk_token": "' + b"x" * 3000 + b'"}'),
    ("csv", b"text,label" + b"label" * 3000 + b"\na,b\n"),
)  # fmt: skip


@pytest.fixture(scope="module")
def every(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Reader]:
    return readers(tmp_path_factory.mktemp("seeds"))


def test_every_reader_is_named(every: dict[str, Reader]) -> None:
    assert tuple(every) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_a_good_file_is_read(every: dict[str, Reader], name: str, tmp_path: Path) -> None:
    """Or the inputs below would be refused for another reason than their damage."""
    if name == "saved_model":
        pytest.skip("a graph that is a model of ours is too large for a seed")
    reader = every[name]
    reader.others(tmp_path)
    assert try_one(reader, tmp_path, reader.seeds[0])


@pytest.mark.parametrize("name", NAMES)
def test_damage_is_one_sentence(every: dict[str, Reader], name: str, tmp_path: Path) -> None:
    logging.disable(logging.WARNING)
    try:
        outcome = drive(every[name], tmp_path / name, INPUTS, seed=0)
    finally:
        logging.disable(logging.NOTSET)
    assert outcome.findings == {}
    assert outcome.refused > INPUTS / 10


@pytest.mark.parametrize(("name", "content"), FOUND)
def test_what_escaped_once(every: dict[str, Reader], name: str, content: bytes, tmp_path: Path) -> None:
    reader = every[name]
    reader.others(tmp_path)
    assert not try_one(reader, tmp_path, content)


@pytest.mark.parametrize("token", [b'"[NONE]"', b'["[UNK]"]', b"3"])
def test_an_unknown_token_that_is_missing(every: dict[str, Reader], token: bytes, tmp_path: Path) -> None:
    reader = every["tokenizer"]
    content = reader.seeds[0].replace(b'"unk_token": "[UNK]"', b'"unk_token": ' + token)
    assert not try_one(reader, tmp_path, content)


def _encrypted(content: bytes) -> bytes:
    damaged = bytearray(content)
    for head, flags in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        at = content.find(head)
        while at >= 0:
            damaged[at + flags] |= 1
            at = content.find(head, at + 1)
    return bytes(damaged)


def _of_text(content: bytes) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(stream, "w") as new:
        for name in old.namelist():
            new.writestr(name, old.read(name) if name == "source_sha256.npy" else b"text")
    return stream.getvalue()


@pytest.mark.parametrize("damage", [_encrypted, _of_text])
def test_an_archive_of_something_else(
    every: dict[str, Reader], damage: Callable[[bytes], bytes], tmp_path: Path
) -> None:
    reader = every["reference"]
    content = damage(reader.seeds[0])
    assert content != reader.seeds[0]
    assert not try_one(reader, tmp_path, content)


def test_float8_is_refused_by_name(every: dict[str, Reader], tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(every["safetensors"].seeds[1])
    with pytest.raises(ValueError, match=r"holds tensors of F8_E4M3, which numpy cannot compute with; save"):
        every["safetensors"].read(tmp_path)
