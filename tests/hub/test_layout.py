"""Which form a repository has, from names alone, and which files of it are downloaded."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tfbert_npu.checkpoints.layout import find_layout, layout_of_file
from tfbert_npu.errors import CheckpointError

FIVE = ["model.safetensors", "pytorch_model.bin", "tf_model.h5", "flax_model.msgpack", "onnx/model.onnx"]
HF = ["README.md", "config.json", "vocab.txt", "tokenizer.json", "tokenizer_config.json"]
SAVED = [
    "saved_model.pb",
    "keras_metadata.pb",
    "fingerprint.pb",
    "variables/variables.index",
    "variables/variables.data-00000-of-00001",
    "assets/vocab.txt",
]
GOOGLE = ["bert_config.json", "vocab.txt", "bert_model.ckpt.meta", "bert_model.ckpt.index", "checkpoint"]
GOOGLE += ["bert_model.ckpt.data-00000-of-00001"]


def wanted(files: list[str], component="auto") -> tuple[str, set[str]]:
    layout = find_layout(files, component)
    return layout.form, set(layout.files)


def test_one_of_five_weight_formats() -> None:
    expected = {"config.json", "model.safetensors", "vocab.txt", "tokenizer.json", "tokenizer_config.json"}
    assert wanted(HF + FIVE) == ("huggingface", expected)
    assert wanted(HF + FIVE, "preprocessor") == ("huggingface", expected - {"model.safetensors"})


def test_a_vocabulary_alone_is_a_preprocessor() -> None:
    assert wanted(["vocab.txt", "README.md"], "preprocessor") == ("huggingface", {"vocab.txt"})
    with pytest.raises(CheckpointError, match=r"no vocabulary: no vocab\.txt, no tokenizer\.json"):
        find_layout(["config.json", "model.safetensors"], "preprocessor")


def test_tokenizer_json_only_for_want_of_a_vocabulary() -> None:
    files = ["config.json", "model.safetensors", "tokenizer.json"]
    assert wanted(files) == ("huggingface", set(files))


def test_shards_and_their_index() -> None:
    shards = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
    index = "model.safetensors.index.json"
    assert wanted(["config.json", index, *shards, "model.fp16-00001-of-00002.safetensors"]) == (
        "huggingface",
        {"config.json", index, *shards},
    )
    with pytest.raises(CheckpointError, match=r"missing: model-00002-of-00002.safetensors; download"):
        find_layout(["config.json", index, shards[0]])


def test_a_saved_model() -> None:
    assert wanted(SAVED) == ("saved_model", set(SAVED) - {"keras_metadata.pb", "fingerprint.pb"})


def test_a_tf1_checkpoint() -> None:
    assert wanted(GOOGLE) == ("google", set(GOOGLE) - {"bert_model.ckpt.meta"})
    assert wanted(GOOGLE, "preprocessor") == ("google", {"bert_config.json", "vocab.txt"})
    with pytest.raises(CheckpointError, match=r"missing: bert_model.ckpt.data-00001-of-00002"):
        find_layout(["bert_config.json", "m.index", "bert_model.ckpt.data-00000-of-00002"])


def test_safetensors_come_first_and_pickles_last() -> None:
    assert wanted([*HF, *FIVE, *SAVED, *GOOGLE])[0] == "huggingface"
    assert wanted(["config.json", "pytorch_model.bin", "model.rknn"])[0] == "npu"
    assert wanted(["config.json", "model.safetensors", "model.rknn"])[0] == "huggingface"
    assert wanted(["config.json", "pytorch_model.bin", "tf_model.h5"])[0] == "tensorflow"
    assert wanted(["config.json", "pytorch_model.bin"]) == ("pytorch", {"config.json", "pytorch_model.bin"})


def test_the_one_folder_that_holds_a_model() -> None:
    layout = find_layout([f"uncased/{name}" for name in GOOGLE] + ["README.md"])
    assert layout.form == "google"
    assert layout.folder == "uncased/"
    assert "uncased/bert_config.json" in layout.files


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ([], "no model of a known form"),
        (["config.json"], "a config.json but no weights"),
        (
            ["config.json", "model.weights.h5", "flax_model.msgpack"],
            r"Flax weights \(flax_mod.*a preset of keras-hub \(model.weights.h5\).*once",
        ),
        (
            ["a/config.json", "a/model.safetensors", "b/saved_model.pb"],
            r"several folders hold a model \(a, b\)",
        ),
    ],
)
def test_nothing_to_load(files: list[str], message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        find_layout(files)


NAMES = st.sampled_from(
    [*HF, *FIVE, *SAVED, *GOOGLE, "model.rknn", "model-00001-of-00009.safetensors", "x/y"]
)


@given(st.lists(NAMES, unique=True), st.sampled_from(["auto", "encoder", "preprocessor", "model"]))
def test_what_is_wanted_is_there(files, component) -> None:
    try:
        layout = find_layout(files, component)
    except CheckpointError:
        return
    assert set(layout.files) <= set(files)
    assert len(set(layout.files)) == len(layout.files)


def test_one_compiled_file_of_several() -> None:
    files = ["config.json", "vocab.txt", "tokenizer.json", "model.safetensors", "model.rknn", "rknn/o3.rknn"]
    layout = layout_of_file(files, "rknn/o3.rknn")
    assert (layout.form, layout.folder) == ("npu", "")
    assert set(layout.files) == {"config.json", "vocab.txt", "tokenizer.json", "rknn/o3.rknn"}
    ours = ["a/manifest.json", "a/config.json", "a/.gitattributes", "a/embeddings.npz", "b/config.json"]
    ours += ["a/model_b1_s16.rknn", "a/model_b1_s32.rknn"]
    layout = layout_of_file(ours, "a/model_b1_s32.rknn")
    assert layout.folder == "a/"
    assert set(layout.files) == {*ours[:2], ours[3], ours[6]}


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (["config.json", "model.rknn"], r"no 'm.rknn'; its .rknn files are model.rknn"),
        (["config.json", "m.onnx"], r"no 'm.rknn'; its .rknn files are none"),
        (["m.rknn", "other/config.json"], r"no config.json above m.rknn"),
    ],
)
def test_a_compiled_file_that_is_not_there(files: list[str], message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        layout_of_file(files, "m.rknn")
