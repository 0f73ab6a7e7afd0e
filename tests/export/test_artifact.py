"""Manifest, hashes and host embeddings of an artifact directory."""

from __future__ import annotations

import dataclasses
import json

import jsonschema
import numpy as np
import pytest

from tfbert_npu.artifact.embeddings import EMBEDDINGS, MASK_BIAS, HostEmbeddings
from tfbert_npu.artifact.hashing import sha256_of, state_sha256
from tfbert_npu.artifact.manifest import Manifest, ModelFile, SupportFile, TensorSpec, schema
from tfbert_npu.errors import ArtifactError
from tfbert_npu.heads import ENCODER
from tfbert_npu.onnx.model import GraphOptions, write_graph

from .models import bert, distilbert, padded_inputs
from .test_graph import run


@pytest.fixture
def directory(tmp_path):
    (tmp_path / "model.rknn").write_bytes(b"network")
    (tmp_path / "vocab.txt").write_bytes(b"[PAD]")
    ids = TensorSpec("input_word_ids", "int32", (-1, -1))
    out = TensorSpec("pooled_output", "float32", (-1, 8))
    Manifest(
        head="encoder",
        embeddings="inside",
        layout="dynamic",
        precision="fp16",
        models=(
            ModelFile(
                "model.rknn",
                "rknn",
                sha256_of(tmp_path / "model.rknn"),
                7,
                ((1, 16), (1, 32)),
                (ids,),
                (out,),
                "rk3588",
                "2.5.0",
                "fp16",
            ),
        ),
        support=(SupportFile("vocab.txt", "tokenizer", sha256_of(tmp_path / "vocab.txt"), 5),),
        source_sha256="0" * 64,
        parity={"pooled_output": {"cosine": 0.99999, "max_abs": 1e-3}},
        cost={"1x16": {"cycles": 10, "mb_moved": 1.5, "npu_ops": 3, "cpu_ops": 2}},
    ).write(tmp_path)
    return tmp_path


def test_what_is_written_is_read(directory):
    manifest = Manifest.read(directory)
    assert manifest.models[0].shapes == ((1, 16), (1, 32))
    assert manifest.models[0].inputs == (TensorSpec("input_word_ids", "int32", (-1, -1)),)
    assert manifest.rknn_files == manifest.models
    assert manifest.onnx_file is None
    manifest.check_files(directory)
    manifest.write(directory)
    assert Manifest.read(directory) == manifest


def test_the_schema_is_one(directory):
    jsonschema.Draft202012Validator.check_schema(schema())
    names = {field.name for field in dataclasses.fields(Manifest)}
    assert set(schema()["properties"]) == names


def test_another_file_of_the_same_size_is_noticed(directory):
    (directory / "model.rknn").write_bytes(b"notwork")
    with pytest.raises(ArtifactError, match="SHA-256"):
        Manifest.read(directory).check_files(directory)
    Manifest.read(directory).check_files(directory, ["vocab.txt"])
    (directory / "model.rknn").write_bytes(b"networ")
    with pytest.raises(ArtifactError, match="6 bytes, not the 7"):
        Manifest.read(directory).check_files(directory)
    (directory / "model.rknn").unlink()
    with pytest.raises(ArtifactError, match="missing"):
        Manifest.read(directory).check_files(directory)


def change(path, *keys):
    def apply(values):
        *parents, last = path
        place = values
        for key in parents:
            place = place[key]
        place[last] = keys[0]
        return values

    return apply


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (change(["format_version"], 2), "of format 2"),
        (change(["models"], []), "at models"),
        (change(["models", 0, "path"], "../model.rknn"), "outside of its directory"),
        (change(["models", 0, "path"], "/etc/passwd"), "outside of its directory"),
        (change(["support", 0, "path"], "a\\b"), "outside of its directory"),
        (change(["models", 0, "sha256"], "abc"), "at models/0/sha256"),
        (change(["models", 0, "shapes"], [[0, 16]]), "at models/0/shapes"),
        (change(["models", 0, "inputs", 0, "dtype"], "int16"), "at models/0/inputs/0/dtype"),
        (change(["cost"], {"1by16": {}}), "at cost"),
        (change(["surprise"], 1), "at the top"),
    ],
)
def test_a_manifest_of_another_form_is_refused(directory, edit, message):
    path = directory / "manifest.json"
    path.write_text(json.dumps(edit(json.loads(path.read_text()))))
    with pytest.raises(ArtifactError, match=message):
        Manifest.read(directory)


@pytest.mark.parametrize("text", ["", "{", "[" * 100_000, "\udcff", "[]", "null"])
def test_what_is_no_manifest_is_refused(directory, text):
    (directory / "manifest.json").write_text(text, errors="surrogateescape")
    with pytest.raises(ArtifactError):
        Manifest.read(directory)


def test_a_directory_without_one_is_no_artifact(tmp_path):
    with pytest.raises(FileNotFoundError, match="no artifact directory"):
        Manifest.read(tmp_path)


def test_weights_have_one_hash_in_any_order_and_another_after_training():
    _, state, _ = bert("BertModel")
    assert state_sha256(dict(reversed(state.items()))) == state_sha256(state)
    changed = {**state, "pooler.dense.bias": state["pooler.dense.bias"] + 1e-6}
    assert state_sha256(changed) != state_sha256(state)


@pytest.mark.parametrize("family", [bert, distilbert], ids=["bert", "distilbert"])
def test_embeddings_summed_here_give_what_embeddings_inside_give(family, tmp_path):
    config, state, _ = family("DistilBertModel" if family is distilbert else "BertModel")
    inputs = padded_inputs(config)
    HostEmbeddings.from_state(state).save(tmp_path)
    fed = HostEmbeddings.load(tmp_path)(inputs)
    assert fed["embeddings"].dtype == fed["attention_bias"].dtype == np.float32
    assert set(np.unique(fed["attention_bias"])) == {0.0, MASK_BIAS}
    host = run(write_graph(config, state, ENCODER, GraphOptions(embeddings="host")), fed)
    inside = run(write_graph(config, state), inputs)
    for name, values in inside.items():
        kept = inputs["input_mask"].astype(bool) if values.ndim == 3 else slice(None)
        np.testing.assert_allclose(host[name][kept], values[kept], atol=5e-3)  # float16 tables


def test_wrong_ids_are_refused_instead_of_wrapped():
    config, state, _ = bert("BertModel")
    host = HostEmbeddings.from_state(state)
    good = padded_inputs(config)
    for name, value in (("input_word_ids", 97), ("input_word_ids", -1), ("input_type_ids", 2)):
        wrong = {**good, name: good[name] * 0 + value}
        with pytest.raises(ValueError, match=f"{name} must be from 0 to"):
            host(wrong)
    with pytest.raises(ValueError, match="41 tokens are more than the model's 40"):
        host(padded_inputs(config, 1, 41))


def test_damaged_tables_are_refused(tmp_path):
    (tmp_path / EMBEDDINGS).write_bytes(b"\xff" * 20)
    with pytest.raises(ArtifactError, match="damaged"):
        HostEmbeddings.load(tmp_path)
