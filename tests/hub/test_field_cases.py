"""Checkpoints as the field has them: what fails elsewhere and is loaded here, or refused with its reason.

The inputs of `shared/cases` have their right values from others; the siblings are made here.
"""

from __future__ import annotations

import json
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from fakehub import FakeHub
from safetensors.numpy import load_file, save_file

from tests.tiny_bert import config as tiny
from tests.tiny_bert import write_checkpoint
from tfbert_npu import (
    BertEncoder,
    BertForMaskedLM,
    BertForTokenClassification,
    BertPreprocessor,
    BertTokenizer,
    export_onnx,
    load_npu,
    pull_from_hub,
)
from tfbert_npu.errors import CheckpointError
from tfbert_npu.models import heads as _classes  # noqa: F401 - defines the classes

IDS = {"input_word_ids": np.array([[2, 5, 6, 7, 3]])}
IDS |= {"input_mask": np.ones((1, 5), int), "input_type_ids": np.zeros((1, 5), int)}


def cases(shared: Path, *names: str) -> Path:
    folder = shared.joinpath("cases", *names)
    if not folder.is_dir():
        pytest.skip(f"the shared data has no {'/'.join(names)}")
    return folder


def loaded(directory: Path, load: Callable[..., Any] = BertEncoder.from_pretrained) -> tuple[Any, list[str]]:
    """A model, and the warnings about what was left aside."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model = load(directory)
    return model, [str(w.message) for w in caught if "left aside" in str(w.message)]


def outputs(encoder: Any) -> np.ndarray:
    return np.asarray(encoder(IDS)["sequence_output"])


# Encoders inside other checkpoints.


@pytest.mark.parametrize(
    ("name", "named"),
    [
        ("crf30", "crf.end_transitions, crf.start_transitions, crf.transitions"),
        ("colbert14", "linear.weight"),
        ("id2label15", "id2label numbers its labels from 1"),
        ("mlm10", "cls.predictions (tie_word_embeddings=false)"),
    ],
)
def test_custom_heads(shared: Path, name: str, named: str) -> None:
    from transformers import AutoModel

    directory = cases(shared, "custom_heads", name)
    encoder, told = loaded(directory)
    assert len(told) == 1
    assert named in told[0]
    import torch

    theirs = AutoModel.from_pretrained(directory, add_pooling_layer=False, attn_implementation="eager").eval()
    with torch.no_grad():
        ids = torch.tensor(IDS["input_word_ids"])
        wanted = theirs(ids, torch.ones_like(ids)).last_hidden_state.numpy()
    np.testing.assert_allclose(outputs(encoder), wanted, atol=1e-5)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    keras.utils.set_random_seed(0)
    return write_checkpoint(tmp_path_factory.mktemp("field") / "c")


def rewritten(
    source: Path, target: Path, change: Callable[[dict[str, np.ndarray]], dict[str, np.ndarray]]
) -> Path:
    shutil.copytree(source, target)
    save_file(change(load_file(source / "model.safetensors")), target / "model.safetensors")
    return target


def prefixed(prefix: str, extra: dict[str, tuple[int, ...]] | None = None) -> Any:
    def change(tensors: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        more = {name: np.ones(shape, np.float32) for name, shape in (extra or {}).items()}
        return {**{prefix + name: value for name, value in tensors.items()}, **more}

    return change


@pytest.mark.parametrize(
    ("prefix", "extra", "named"),
    [
        ("module.bert.", {"module.classifier.weight": (2, 32), "module.classifier.bias": (2,)}, []),
        ("model.", {"projection.weight": (8, 32)}, ["projection.weight"]),
        ("text_encoder.", {"lstm.weight_ih_l0": (64, 32), "fc.bias": (3,)}, ["lstm.weight_ih_l0", "fc.bias"]),
        (
            "bert.",
            {"intent_classifier.linear.weight": (4, 32), "slot_classifier.linear.weight": (9, 32)},
            ["intent_classifier.linear.weight", "slot_classifier.linear.weight"],
        ),
        ("module.", {"module.crf.transitions": (3, 3)}, ["crf.transitions"]),
    ],
)
def test_siblings_with_prefixes_and_foreign_heads(
    checkpoint: Path, tmp_path: Path, prefix: str, extra: dict[str, tuple[int, ...]], named: list[str]
) -> None:
    directory = rewritten(checkpoint, tmp_path / "m", prefixed(prefix, extra))
    wanted = outputs(BertEncoder.from_pretrained(checkpoint))
    for load in (BertEncoder.from_pretrained, pull_from_hub):
        encoder, told = loaded(directory, load)
        np.testing.assert_array_equal(outputs(encoder), wanted)
        assert len(told) == bool(named)
        assert all(name in told[0] for name in named)


def test_a_missing_tensor_is_still_an_error_and_names_what_is_foreign(
    checkpoint: Path, tmp_path: Path
) -> None:
    def change(tensors: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        del tensors["encoder.layer.0.output.dense.bias"]
        return {**tensors, "crf.transitions": np.ones((3, 3), np.float32)}

    directory = rewritten(checkpoint, tmp_path / "m", change)
    with pytest.raises(
        CheckpointError, match=r"missing: encoder.layer.0.output.dense.bias; of another model: crf"
    ):
        BertEncoder.from_pretrained(directory)


def test_two_encoders_are_not_chosen_between(checkpoint: Path, tmp_path: Path) -> None:
    def change(tensors: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        return {**prefixed("query.")(tensors), **prefixed("passage.")(tensors)}

    directory = rewritten(checkpoint, tmp_path / "m", change)
    with pytest.raises(CheckpointError, match=r"several encoders \(passage., query.\)"):
        BertEncoder.from_pretrained(directory)


def test_an_untied_decoder_is_refused_where_it_is_wanted(shared: Path) -> None:
    directory = cases(shared, "custom_heads", "mlm10")
    for load in (BertForMaskedLM.from_pretrained, lambda d: BertEncoder.from_pretrained(d, mlm=True)):
        with pytest.raises(CheckpointError, match="output matrix of its own"):
            load(directory)


def test_labels_from_1_leave_a_head_without_names(shared: Path) -> None:
    model, told = loaded(
        cases(shared, "custom_heads", "id2label15"), BertForTokenClassification.from_pretrained
    )
    assert model.config.id2label == ("LABEL_0", "LABEL_1", "LABEL_2")
    assert len(told) == 1


# Google's checkpoints under other scopes.


@pytest.mark.parametrize("name", ["bert1", "crf", "dense", "ema", "module", "numbered", "opt", "tower"])
def test_scopes_of_tensorflow_1(shared: Path, name: str) -> None:
    directory = cases(shared, "tf1_scopes", name)
    for load in (BertEncoder.from_pretrained, pull_from_hub):
        encoder, told = loaded(directory, load)
        assert np.isfinite(outputs(encoder)).all()
        assert len(told) == (name in ("crf", "dense"))
    import tensorflow as tf

    prefix = tf.train.latest_checkpoint(directory) or str(directory / "bert_model.ckpt")
    reader = tf.train.load_checkpoint(prefix)
    (word,) = [n for n in reader.get_variable_to_shape_map() if n.endswith("embeddings/word_embeddings")]
    np.testing.assert_array_equal(encoder.embeddings.word_embeddings.embeddings, reader.get_tensor(word))


def write_tf1(directory: Path, change: Callable[[str], str], extra: tuple[str, ...] = ()) -> Path:
    """A checkpoint in Google's form with the variables' names changed."""
    import tensorflow as tf

    from tfbert_npu.checkpoints.names import encoder_rows, pooler_rows
    from tfbert_npu.checkpoints.variables import extract, rows_of

    keras.utils.set_random_seed(2)
    encoder = BertEncoder(tiny())
    encoder.build()
    state = extract(encoder, rows_of(encoder))
    tensors = {}
    for row in (*encoder_rows(encoder.config), *pooler_rows(encoder.config)):
        value = state[row.name]
        assert row.google is not None
        tensors[change(row.google)] = value.T if row.is_kernel and not row.google_out_in else value
    tensors |= {name: np.ones(3, np.float32) for name in extra}
    directory.mkdir()
    names = list(tensors)
    tf.raw_ops.SaveV2(
        prefix=str(directory / "bert_model.ckpt"),
        tensor_names=names,
        shape_and_slices=[""] * len(names),
        tensors=[tf.constant(tensors[name]) for name in names],
    )
    config = tiny().to_huggingface()
    (directory / "bert_config.json").write_text(json.dumps(config))
    return directory


@pytest.mark.parametrize(
    ("change", "extra", "told_of"),
    [
        (lambda n: f"replica_3/{n}", (), ()),
        (lambda n: n.replace("bert/", "bert_7/"), ("bert_7/embeddings/LayerNorm/gamma/LAMBOptimizer",), ()),
        (lambda n: n.replace("bert/", "my_model/encoder/"), ("my_head/kernel",), ("my_head/kernel",)),
        (lambda n: f"a/b/{n}", ("a/b/rnn/kernel", "training/Adam/iterations"), ("rnn/kernel",)),
    ],
)
def test_siblings_of_scopes(
    tmp_path: Path, change: Any, extra: tuple[str, ...], told_of: tuple[str, ...]
) -> None:
    wanted = outputs(BertEncoder.from_pretrained(write_tf1(tmp_path / "plain", lambda n: n)))
    encoder, told = loaded(write_tf1(tmp_path / "scoped", change, extra))
    np.testing.assert_array_equal(outputs(encoder), wanted)
    assert len(told) == bool(told_of)
    assert all(name in told[0] for name in told_of)


def test_object_checkpoints_of_tensorflow_2_are_named(tmp_path: Path) -> None:
    import tensorflow as tf

    directory = write_tf1(tmp_path / "m", lambda n: n)
    for path in directory.glob("bert_model.ckpt*"):
        path.unlink()
    tf.train.Checkpoint(model=tf.Variable(np.ones(3))).write(str(directory / "bert_model.ckpt"))
    with pytest.raises(CheckpointError, match="TensorFlow 2 object checkpoint"):
        BertEncoder.from_pretrained(directory)


# Files that are something else.

POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:" + "0" * 64 + "\nsize 438\n"


@pytest.mark.parametrize("name", ["model.safetensors", "config.json"])
def test_a_git_lfs_pointer_is_named_through_every_door(checkpoint: Path, tmp_path: Path, name: str) -> None:
    directory = tmp_path / "m"
    shutil.copytree(checkpoint, directory)
    (directory / name).write_text(POINTER)
    doors = (BertEncoder.from_pretrained, pull_from_hub, BertForTokenClassification.from_pretrained)
    for door in (*doors, lambda d: export_onnx(d, tmp_path / "out")):
        with pytest.raises(CheckpointError, match=rf"{name} is a git-lfs pointer.*run git lfs pull"):
            door(directory)


def test_git_lfs_pointers_of_other_files(shared: Path, checkpoint: Path, tmp_path: Path) -> None:
    directory = cases(shared, "lfs_pointer")
    assert (directory / "model.safetensors").read_text().startswith(POINTER[:30])
    with pytest.raises(ValueError, match="git-lfs pointer"):
        BertEncoder.from_pretrained(directory)
    for name, door in (
        ("vocab.txt", BertTokenizer.from_pretrained),
        ("model.onnx", lambda d: load_npu(d, "onnx")),
        ("manifest.json", lambda d: load_npu(d, "onnx")),
    ):
        broken = tmp_path / name.replace(".", "_")
        export_onnx(checkpoint, broken)
        (broken / name).write_text(POINTER)
        with pytest.raises(ValueError, match=rf"{name} is a git-lfs pointer"):
            door(broken)
    google = write_tf1(tmp_path / "google", lambda n: n)
    (google / "bert_model.ckpt.index").write_text(POINTER)
    with pytest.raises(ValueError, match="index is a git-lfs pointer"):
        BertEncoder.from_pretrained(google)


def test_a_preset_of_keras_hub_is_named_through_every_door(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(
        json.dumps(
            {"module": "keras_hub.src.models.bert.bert_backbone", "class_name": "BertBackbone", "config": {}}
        )
    )
    (tmp_path / "model.weights.h5").write_bytes(b"\x89HDF\r\n")
    for door in (BertEncoder.from_pretrained, pull_from_hub, lambda d: export_onnx(d, tmp_path / "out")):
        with pytest.raises(CheckpointError, match="preset of keras-hub"):
            door(tmp_path)


def test_repeated_lines_of_a_vocabulary(shared: Path) -> None:
    for name, wanted in {"two_empty": [5, 10, 6], "dup_word": [8, 9, 6], "dup_unused": [8, 9, 10]}.items():
        with pytest.warns(UserWarning, match="line"):
            tokenizer = BertTokenizer.from_pretrained(cases(shared, "vocab_repeats", name))
        ids = tokenizer(["cat mat dog"])["input_word_ids"][0]
        assert [int(one) for one in ids if one][1:-1] == wanted


def test_one_repository_has_one_tokenizer_through_every_door(shared: Path, hub: FakeHub) -> None:
    """tokenizer.json says that case is kept; vocab.txt alone, and the repository's name, do not."""
    directory = cases(shared, "two_doors")
    hub.add("owner/bert-base-uncased").commit_directory(directory)
    for where in (directory, "owner/bert-base-uncased"):
        for door in (
            BertTokenizer.from_pretrained,
            BertPreprocessor.from_pretrained,
            lambda one: pull_from_hub(one, component="preprocessor"),
        ):
            assert list(np.asarray(door(where)(["Hello"])["input_word_ids"][0])[:3]) == [2, 109, 3]
