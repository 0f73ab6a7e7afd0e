"""Every reader as a function from a folder to a typed result or a `TfbertNpuError`, and a good file for it."""

from __future__ import annotations

import importlib
import io
import json
import struct
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy

from tests import tiny_bert
from tests.runtime.artifacts import write_artifact
from tfbert_npu import BertConfig, BertTokenizer
from tfbert_npu.artifact.manifest import Manifest
from tfbert_npu.artifact.reference import Reference
from tfbert_npu.artifact.rknn_file import read_rknn
from tfbert_npu.checkpoints.safetensors_files import read_tensors
from tfbert_npu.checkpoints.saved_model import read_saved_model
from tfbert_npu.checkpoints.sentence_options import read_sentence_options
from tfbert_npu.preprocess import Vocabulary
from tfbert_npu.tasks.conll import read_conll
from tfbert_npu.tasks.evaluation import read_predictions
from tfbert_npu.tasks.readers import read_squad, read_texts

Read = Callable[[Path], Any]


@dataclass(frozen=True)
class Reader:
    """A reader, the name of the file that is damaged, and good contents of it."""

    file: str
    seeds: tuple[bytes, ...]
    read: Read
    others: Callable[[Path], Any] = lambda folder: None
    """Writes what else the folder holds."""
    refuses_with: tuple[type[Exception], ...] = ()
    """Beside `TfbertNpuError`."""


def _as_json(value: Any) -> bytes:
    return json.dumps(value, indent=1).encode()


def _vocabulary(folder: Path) -> None:
    (folder / "vocab.txt").write_text("\n".join(tiny_bert.TOKENS) + "\n")


def _tokenize(folder: Path) -> Any:
    return BertTokenizer.from_directory(folder)(["The cat sat."], seq_length=8)


def _reference(tmp: Path) -> bytes:
    ids = {"input_word_ids": np.ones((2, 4), np.int32), "input_mask": np.ones((2, 4), np.int32)}
    Reference(ids, {"pooled_output": np.zeros((2, 8), np.float32)}, {}, "0" * 64).write(tmp)
    return (tmp / "reference.npz").read_bytes()


def _zip() -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("archive/data.pkl", b"\x80\x02}q\x00.")
    return stream.getvalue()


def _artifact_files(tmp: Path) -> tuple[bytes, bytes]:
    directory = write_artifact(tmp / "artifact")
    return (directory / "manifest.json").read_bytes(), (directory / "model.rknn").read_bytes()


def readers(tmp: Path) -> dict[str, Reader]:
    """All readers; `tmp` is a folder for what the seeds are made in."""
    importlib.import_module("tensorflow")  # which takes longer than any input may
    tiny_bert.tokenizer().save_pretrained(tmp / "tokenizer")
    tokenizer = {path.name: path.read_bytes() for path in (tmp / "tokenizer").iterdir()}
    manifest, rknn = _artifact_files(tmp)
    rules = {
        "version": "1.0",
        "added_tokens": [{"id": len(tiny_bert.TOKENS), "content": "<e>", "special": False, "normalized": False,
                          "single_word": False, "lstrip": False, "rstrip": False}],
        "normalizer": {"type": "BertNormalizer", "clean_text": True, "handle_chinese_chars": True,
                       "strip_accents": None, "lowercase": True},
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "post_processor": {"type": "BertProcessing", "sep": ["[SEP]", 3], "cls": ["[CLS]", 2]},
        "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": True},
        "model": {"type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##",
                  "max_input_chars_per_word": 100,
                  "vocab": {token: number for number, token in enumerate(tiny_bert.TOKENS)}},
    }  # fmt: skip
    squad = {
        "version": "1.1",
        "data": [{"title": "t", "paragraphs": [{"context": "Anna ran.", "qas": [
            {"id": "1", "question": "Who ran?", "answers": [{"text": "Anna", "answer_start": 0}]}]}]}],
    }  # fmt: skip
    modules = [
        {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},
        {"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
    ]
    pooling = {
        "word_embedding_dimension": 32,
        "pooling_mode_cls_token": False,
        "pooling_mode_mean_tokens": True,
    }
    tensors = safetensors.numpy.save({"a": np.ones((2, 3), np.float32), "b": np.zeros(4, np.int64)})
    header = json.dumps({"a": {"dtype": "F8_E4M3", "shape": [2], "data_offsets": [0, 2]}}).encode()
    float8 = struct.pack("<Q", len(header)) + header + b"\0\0"

    def with_modules(folder: Path) -> None:
        (folder / "modules.json").write_bytes(_as_json(modules))
        (folder / "1_Pooling").mkdir(exist_ok=True)
        (folder / "1_Pooling" / "config.json").write_bytes(_as_json(pooling))

    return {
        "vocab": Reader("vocab.txt", (tokenizer["vocab.txt"],), lambda d: Vocabulary.from_file(d / "vocab.txt")),
        "tokenizer": Reader("tokenizer.json", (_as_json(rules),), _tokenize),
        "tokenizer_config": Reader(
            "tokenizer_config.json", (tokenizer["tokenizer_config.json"],), _tokenize, _vocabulary
        ),
        "special_tokens": Reader(
            "special_tokens_map.json", (_as_json({"unk_token": "[UNK]", "cls_token": {"content": "[CLS]"}}),),
            _tokenize, _vocabulary,
        ),
        "added_tokens": Reader("added_tokens.json", (_as_json({"<e>": len(tiny_bert.TOKENS)}),), _tokenize, _vocabulary),
        "config": Reader(
            "config.json",
            (_as_json(tiny_bert.config().to_huggingface("BertForSequenceClassification")),),
            lambda d: BertConfig.from_json(d / "config.json", source="huggingface"),
        ),
        "safetensors": Reader("model.safetensors", (tensors, float8), read_tensors),
        "safetensors_index": Reader(
            "model.safetensors.index.json",
            (_as_json({"metadata": {"total_size": 4}, "weight_map": {"a": "one.safetensors", "b": "one.safetensors"}}),),
            read_tensors, lambda d: (d / "one.safetensors").write_bytes(tensors),
            (FileNotFoundError,),
        ),
        "saved_model": Reader("saved_model.pb", (b"\x08\x01\x12\x04\x0a\x02\x0a\x00",), read_saved_model),
        "manifest": Reader("manifest.json", (manifest,), Manifest.read),
        "reference": Reader("reference.npz", (_reference(tmp), _zip()), Reference.read),
        "rknn": Reader("model.rknn", (rknn,), lambda d: read_rknn(d / "model.rknn")),
        "modules": Reader("modules.json", (_as_json(modules),), read_sentence_options, with_modules),
        "pooling": Reader("1_Pooling/config.json", (_as_json(pooling),), read_sentence_options, with_modules),
        "sentence_config": Reader(
            "config_sentence_transformers.json",
            (_as_json({"prompts": {"query": "q: "}, "default_prompt_name": "query", "similarity_fn_name": "cosine"}),),
            read_sentence_options, with_modules,
        ),
        "conll": Reader(
            "a.conll", (b"-DOCSTART- -X- O O\n\nAnna NNP B-NP B-PER\nran VBD B-VP O\n",),
            lambda d: list(read_conll(d / "a.conll")),
        ),
        "csv": Reader(
            "a.csv", (b'text,label\n"a ""b"", c",yes\nd,no\n',), lambda d: list(read_texts(d / "a.csv"))
        ),
        "tsv": Reader("a.tsv", (b'text\tlabel\n"a b\tyes\nd\tno\n',), lambda d: list(read_texts(d / "a.tsv"))),
        "json_lines": Reader(
            "a.jsonl", (b'{"text": "a", "label": "yes"}\n{"text": "b", "label": "no"}\n',),
            lambda d: list(read_texts(d / "a.jsonl")),
        ),
        "squad": Reader("a.json", (_as_json(squad),), lambda d: list(read_squad(d / "a.json"))),
        "predictions": Reader(
            "p.jsonl", (b'{"row": 0, "expected": "a", "found": "b"}\n{"row": 1, "expected": ["a"], "found": []}\n',),
            lambda d: read_predictions(d / "p.jsonl"),
        ),
    }  # fmt: skip
