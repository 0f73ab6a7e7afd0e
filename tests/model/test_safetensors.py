"""Hugging Face directories as they are found in the wild, and damaged ones."""

from __future__ import annotations

import json
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from tfbert_npu import BertConfig, BertEncoder
from tfbert_npu.errors import CheckpointError

Tensors = dict[str, np.ndarray]


@pytest.fixture
def checkpoint(tmp_path: Path, config: BertConfig) -> Path:
    """A small random checkpoint with pooler and MLM head."""
    directory = tmp_path / "checkpoint"
    BertEncoder(config, mlm=True).save_pretrained(directory)
    return directory


def rewrite(directory: Path, change: Callable[[Tensors], Tensors]) -> None:
    path = directory / "model.safetensors"
    save_file(change(load_file(path)), path)


def rename(old: str, new: str) -> Callable[[Tensors], Tensors]:
    return lambda tensors: {name.replace(old, new): tensor for name, tensor in tensors.items()}


def without(*parts: str) -> Callable[[Tensors], Tensors]:
    return lambda tensors: {
        name: tensor for name, tensor in tensors.items() if not any(part in name for part in parts)
    }


def outputs(directory: Path, batch: Tensors) -> np.ndarray:
    return BertEncoder.from_pretrained(directory)(batch)["sequence_output"].numpy()


@pytest.mark.parametrize(
    "change",
    [
        lambda tensors: {name.removeprefix("bert."): tensor for name, tensor in tensors.items()},
        lambda tensors: {
            name.replace("LayerNorm.weight", "LayerNorm.gamma").replace(
                "LayerNorm.bias", "LayerNorm.beta"
            ): tensor
            for name, tensor in tensors.items()
        },
        lambda tensors: {**tensors, "bert.embeddings.position_ids": np.arange(32)[None]},
        lambda tensors: {
            **tensors,
            "cls.predictions.decoder.weight": tensors["bert.embeddings.word_embeddings.weight"],
            "cls.predictions.decoder.bias": tensors["cls.predictions.bias"],
        },
        lambda tensors: {
            **tensors,
            "classifier.weight": np.zeros((2, 24), np.float32),
            "cls.seq_relationship.weight": np.zeros((2, 24), np.float32),
        },
        lambda tensors: {name: tensor.astype(np.float64) for name, tensor in tensors.items()},
    ],
    ids=["no prefix", "gamma and beta", "position ids", "tied decoder", "other heads", "float64"],
)
def test_names_of_the_wild(checkpoint: Path, batch: Tensors, change: Callable[[Tensors], Tensors]) -> None:
    expected = outputs(checkpoint, batch)
    rewrite(checkpoint, change)
    np.testing.assert_array_equal(outputs(checkpoint, batch), expected)


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
def test_half_precision_files(checkpoint: Path, config: BertConfig, dtype: type) -> None:
    original = load_file(checkpoint / "model.safetensors")
    rewrite(checkpoint, lambda tensors: {name: tensor.astype(dtype) for name, tensor in tensors.items()})
    encoder = BertEncoder.from_pretrained(checkpoint)
    kernel = encoder.layers[1].intermediate.kernel
    assert kernel.dtype == "float32"
    rounded = original["bert.encoder.layer.1.intermediate.dense.weight"].astype(dtype).astype(np.float32)
    np.testing.assert_array_equal(kernel.numpy(), rounded.T)


def test_sharded_files(checkpoint: Path, batch: Tensors) -> None:
    expected = outputs(checkpoint, batch)
    tensors = load_file(checkpoint / "model.safetensors")
    (checkpoint / "model.safetensors").unlink()
    weight_map = {}
    for index, name in enumerate(sorted(tensors)):
        weight_map[name] = f"model-0000{index % 3 + 1}-of-00003.safetensors"
    for file in set(weight_map.values()):
        save_file({name: tensors[name] for name in tensors if weight_map[name] == file}, checkpoint / file)
    index_file = checkpoint / "model.safetensors.index.json"
    index_file.write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    np.testing.assert_array_equal(outputs(checkpoint, batch), expected)

    (checkpoint / "model-00002-of-00003.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match=r"lacks model-00002-of-00003\.safetensors"):
        outputs(checkpoint, batch)
    for escape in ("../model.safetensors", "/etc/passwd", "..\\model.safetensors"):
        index_file.write_text(json.dumps({"weight_map": {"a": escape}}))
        with pytest.raises(CheckpointError, match="outside of its directory"):
            outputs(checkpoint, batch)
    for damage in ("{}", "[]", "{", '{"weight_map": 3}'):
        index_file.write_text(damage)
        with pytest.raises(CheckpointError, match="is no index of weight files"):
            outputs(checkpoint, batch)


def test_an_absent_pooler_is_said_and_never_invented(checkpoint: Path, batch: Tensors) -> None:
    rewrite(checkpoint, without("pooler"))
    with pytest.warns(UserWarning, match="holds no pooler"):
        encoder = BertEncoder.from_pretrained(checkpoint)
    result = encoder(batch)
    np.testing.assert_array_equal(result["pooled_output"], result["sequence_output"][:, 0])
    with pytest.raises(CheckpointError, match=r"missing: pooler\.dense\.bias, pooler\.dense\.weight"):
        BertEncoder.from_pretrained(checkpoint, add_pooler=True)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        BertEncoder.from_pretrained(checkpoint, add_pooler=False)


def test_the_mlm_head_is_optional_but_never_invented(checkpoint: Path) -> None:
    assert BertEncoder.from_pretrained(checkpoint).mlm_head is not None
    assert BertEncoder.from_pretrained(checkpoint, mlm=False).mlm_head is None
    rewrite(checkpoint, without("cls.predictions.transform.dense"))
    with pytest.raises(CheckpointError, match=r"missing: cls\.predictions\.transform\.dense\.bias"):
        BertEncoder.from_pretrained(checkpoint)
    rewrite(checkpoint, without("cls.predictions"))
    assert BertEncoder.from_pretrained(checkpoint).mlm_head is None


def test_an_error_lists_everything_that_is_wrong(checkpoint: Path) -> None:
    def damage(tensors: Tensors) -> Tensors:
        tensors = without("layer.1.attention.self.key", "embeddings.LayerNorm.weight")(tensors)
        tensors["bert.encoder.layer.0.output.dense.weight"] = np.zeros((40, 24), np.float32)
        tensors["bert.encoder.layer.2.output.dense.bias"] = np.zeros(24, np.int64)
        return {**tensors, "bert.encoder.layer.3.output.dense.bias": np.zeros(24, np.float32)}

    rewrite(checkpoint, damage)
    with pytest.raises(CheckpointError) as caught:
        BertEncoder.from_pretrained(checkpoint)
    message = str(caught.value)
    for part in (
        "missing: embeddings.LayerNorm.weight, encoder.layer.1.attention.self.key.bias, "
        "encoder.layer.1.attention.self.key.weight",
        "unknown: encoder.layer.3.output.dense.bias",
        "encoder.layer.0.output.dense.weight is [40, 24], not [24, 40]",
        "not floating point: encoder.layer.2.output.dense.bias",
    ):
        assert part in message
    assert "\n" not in message


def test_an_untied_output_matrix_is_refused(checkpoint: Path) -> None:
    rewrite(
        checkpoint,
        lambda tensors: {**tensors, "cls.predictions.decoder.weight": np.ones((97, 24), np.float32)},
    )
    with pytest.raises(CheckpointError, match="output matrix of its own"):
        BertEncoder.from_pretrained(checkpoint, mlm=True)
    with pytest.warns(UserWarning, match=r"left aside: cls.predictions \(tie_word_embeddings=false\)"):
        assert BertEncoder.from_pretrained(checkpoint).mlm_head is None


def test_a_tensor_under_two_names(checkpoint: Path) -> None:
    rewrite(checkpoint, lambda tensors: {**tensors, "pooler.dense.bias": np.ones(24, np.float32)})
    with pytest.raises(CheckpointError, match=r"holds pooler\.dense\.bias twice"):
        BertEncoder.from_pretrained(checkpoint)


@pytest.mark.parametrize("keep", [0, 4, 8, 100, 4000, -1])
def test_truncated_files(checkpoint: Path, keep: int) -> None:
    path = checkpoint / "model.safetensors"
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(CheckpointError, match="truncated or no safetensors file") as caught:
        BertEncoder.from_pretrained(checkpoint)
    assert str(path) in str(caught.value)


def test_a_pickle_posing_as_safetensors(checkpoint: Path) -> None:
    (checkpoint / "model.safetensors").write_bytes(b"\x80\x04\x95" + b"\x00" * 64)
    with pytest.raises(CheckpointError, match="no safetensors file"):
        BertEncoder.from_pretrained(checkpoint)


def test_missing_directory_and_files(tmp_path: Path, checkpoint: Path) -> None:
    with pytest.raises(FileNotFoundError, match="neither a directory nor a hub repository"):
        BertEncoder.from_pretrained(tmp_path / "absent")
    (checkpoint / "model.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match=r"holds neither model\.safetensors nor"):
        BertEncoder.from_pretrained(checkpoint)
    shutil.rmtree(checkpoint)
    checkpoint.mkdir()
    with pytest.raises(FileNotFoundError, match=r"config\.json"):
        BertEncoder.from_pretrained(checkpoint)


@pytest.mark.parametrize("mlm", [False, True])
@pytest.mark.parametrize("add_pooler", [False, True])
@pytest.mark.parametrize("model_type", ["bert", "distilbert"])
@pytest.mark.filterwarnings("ignore:.*holds no pooler")
def test_round_trip(
    tmp_path: Path, config: BertConfig, batch: Tensors, mlm: bool, add_pooler: bool, model_type: str
) -> None:
    encoder = BertEncoder(config.replace(model_type=model_type), mlm=mlm, add_pooler=add_pooler)
    encoder.save_pretrained(tmp_path)
    again = BertEncoder.from_pretrained(tmp_path)
    assert again.get_config() == {**encoder.get_config(), "name": again.name}
    assert len(again.weights) == len(encoder.weights)
    for left, right in zip(encoder.weights, again.weights, strict=True):
        if "seed" not in left.path:
            np.testing.assert_array_equal(left, right)


def test_a_failed_save_leaves_the_old_checkpoint(
    checkpoint: Path, config: BertConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = {path.name: path.read_bytes() for path in checkpoint.iterdir()}

    def full(*arguments: object, **options: object) -> None:
        Path(str(arguments[1])).write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("tfbert_npu.checkpoints.pretrained.save_file", full)
    with pytest.raises(OSError, match=r"could not be written \(no space left"):
        BertEncoder(config).save_pretrained(checkpoint)
    assert {path.name: path.read_bytes() for path in checkpoint.iterdir()} == before
