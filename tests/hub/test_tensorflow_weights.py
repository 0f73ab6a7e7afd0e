"""transformers' TensorFlow weights of every head, in each of their forms."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import keras
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from tests.hub.test_field_cases import IDS, cases, outputs
from tests.tiny_bert import config as tiny
from tfbert_npu import (
    BertEncoder,
    export_onnx,
    load_npu,
    pull_from_hub,
)
from tfbert_npu.errors import CheckpointError
from tfbert_npu.heads import heads
from tfbert_npu.models import heads as _classes  # noqa: F401 - defines the classes
from tfbert_npu.models.head import BertHead


@pytest.mark.parametrize("name", ["TFBertModel_h5", "TFBertModel_st"])
def test_tensorflow_weights_of_an_encoder(shared: Path, name: str) -> None:
    directory = cases(shared, "tf_weights", name)
    wanted = np.load(directory / "want.npy")
    for load in (BertEncoder.from_pretrained, pull_from_hub):
        np.testing.assert_allclose(outputs(load(directory)), wanted, atol=1e-5)


def test_tensorflow_weights_of_a_classifier(shared: Path, tmp_path: Path) -> None:
    from tfbert_npu import BertForSequenceClassification

    directory = cases(shared, "tf_weights", "TFBertForSequenceClassification_h5")
    wanted = np.load(directory / "want.npy")
    for load in (
        BertForSequenceClassification.from_pretrained,
        lambda d: pull_from_hub(d, component="model"),
    ):
        np.testing.assert_allclose(np.asarray(load(directory)(IDS)), wanted, atol=1e-5)
    with load_npu(export_onnx(directory, tmp_path / "m"), "onnx") as model:
        np.testing.assert_allclose(model(IDS)["logits"], wanted, atol=1e-5)


def tensorflow_name(name: str, value: np.ndarray) -> tuple[str, np.ndarray]:
    """The inverse, by the rules of transformers' TensorFlow models."""
    *folders, last = name.split(".")
    if re.search("layer_?norm", folders[-1], re.IGNORECASE):
        last = {"weight": "gamma", "bias": "beta"}[last]
    elif folders[-1].endswith("embeddings") and last == "weight":
        last = "weight" if folders[-1] == "word_embeddings" else "embeddings"
    elif last == "weight":
        last, value = "kernel", np.ascontiguousarray(value.T)
    path = "/".join([*folders, last])
    path = re.sub(r"/layer/(\d+)/", r"/layer_._\1/", path)
    path = re.sub("^cls/predictions", "mlm___cls/predictions", path)
    return re.sub("^cls/seq", "nsp___cls/seq", path) + ":0", value


def write_h5(path: Path, tensors: dict[str, np.ndarray]) -> None:
    import h5py

    with h5py.File(path, "w") as file:
        for name, value in tensors.items():
            file.create_dataset(f"{name.split('/')[0]}/tf_model_name/{name}", data=value)


@pytest.mark.parametrize("form", ["h5", "sharded", "safetensors"])
@pytest.mark.parametrize("family", ["bert", "distilbert"])
@pytest.mark.parametrize("head", [head.name for head in heads() if not head.causal])
def test_tensorflow_weights_of_every_head(head: str, family: str, form: str, tmp_path: Path) -> None:
    spec = next(one for one in heads() if one.name == head)
    if family == "distilbert" and not spec.distilbert:
        pytest.skip("DistilBERT has no such head")
    keras.utils.set_random_seed(1)
    sizes = {"model_type": family, "type_vocab_size": 0} if family == "distilbert" else {}
    model = BertEncoder(tiny(**sizes)) if head == "encoder" else BertHead.class_of(spec)(tiny(**sizes))
    model.build()
    directory = tmp_path / "m"
    model.save_pretrained(directory)
    named = dict(tensorflow_name(*pair) for pair in load_file(directory / "model.safetensors").items())
    (directory / "model.safetensors").unlink()
    if form == "safetensors":
        save_file(named, directory / "model.safetensors", metadata={"format": "tf"})
    elif form == "h5":
        write_h5(directory / "tf_model.h5", named)
    else:
        names = sorted(named)
        parts = {f"tf_model-0000{n + 1}-of-00002.h5": names[n::2] for n in range(2)}
        for file, mine in parts.items():
            write_h5(directory / file, {name: named[name] for name in mine})
        index = {"weight_map": {name: file for file, mine in parts.items() for name in mine}}
        (directory / "tf_model.h5.index.json").write_text(json.dumps(index))
    inputs = {name: value for name, value in IDS.items() if not (sizes and name == "input_type_ids")}
    if spec.choices:
        inputs = {name: value[:, None] for name, value in inputs.items()}
    for load in (
        type(model).from_pretrained,
        lambda d: pull_from_hub(d, component="model" if spec.outputs else "auto"),
    ):
        got, wanted = (keras.tree.flatten(one(inputs, training=False)) for one in (load(directory), model))
        for a, b in zip(got, wanted, strict=True):
            np.testing.assert_array_equal(a, b)


def test_damaged_h5_files_are_one_sentence(shared: Path, tmp_path: Path) -> None:
    import h5py

    source = cases(shared, "tf_weights", "TFBertModel_h5")
    for damage in ("empty", "html", "cut", "bomb", "elsewhere"):
        directory = tmp_path / damage
        shutil.copytree(source, directory)
        path = directory / "tf_model.h5"
        content = path.read_bytes()
        if damage in ("bomb", "elsewhere"):
            path.unlink()
            with h5py.File(path, "w") as file:
                if damage == "bomb":
                    file.create_dataset(
                        "a/b/c:0", shape=(10**9,), dtype="f4", chunks=(10**6,), compression="gzip"
                    )
                else:
                    file.create_dataset("a/b/c:0", (4,), "f4", external=[("/etc/hostname", 0, 16)])
        else:
            path.write_bytes(
                {"empty": b"", "html": b"<html>" * 99, "cut": content[: len(content) // 2]}[damage]
            )
        with pytest.raises(CheckpointError, match=r"tf_model.h5 (is damaged|holds fewer bytes)"):
            BertEncoder.from_pretrained(directory)
