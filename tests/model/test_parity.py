"""The encoder's numbers against other people's: a float64 numpy BERT and PyTorch transformers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from tfbert_npu import BertEncoder


def eager(encoder: BertEncoder) -> Callable[[Any], Any]:
    return encoder


def graph(encoder: BertEncoder) -> Callable[[Any], Any]:
    return tf.function(encoder.__call__)


def xla(encoder: BertEncoder) -> Callable[[Any], Any]:
    return tf.function(encoder.__call__, jit_compile=True)


def as_inputs(golden: Any, case: int) -> dict[str, tf.Tensor]:
    names = {
        "input_word_ids": "input_ids",
        "input_mask": "attention_mask",
        "input_type_ids": "token_type_ids",
    }
    return {ours: tf.constant(golden[f"{case}.{theirs}"][None], tf.int32) for ours, theirs in names.items()}


@pytest.mark.parametrize("mode", [eager, graph, xla])
@pytest.mark.parametrize(
    ("weights", "golden_file", "tolerance"),
    [
        ("minilm", "minilm_numpy/minilm_dev.npz", 1e-4),
        ("hf_tiny_random_bert", "hf_tiny_random_dev/tiny.npz", 1e-5),
    ],
)
def test_every_layer_equals_the_numpy_golden(
    shared: Path, minilm: Path, mode: Any, weights: str, golden_file: str, tolerance: float
) -> None:
    directory = minilm if weights == "minilm" else shared / "data" / "weights" / weights
    golden = np.load(shared / "data" / "golden" / golden_file)
    if weights == "minilm":
        encoder = BertEncoder.from_pretrained(directory)
    else:
        with pytest.warns(UserWarning, match="holds no pooler"):
            encoder = BertEncoder.from_pretrained(directory)
    call = mode(encoder)
    cases = sorted({int(name.partition(".")[0]) for name in golden.files})
    assert cases
    for case in cases:
        inputs = as_inputs(golden, case)
        outputs = call(inputs)
        tokens = inputs["input_mask"][0].numpy() == 1
        expected = golden[f"{case}.hidden_states"]
        assert len(outputs["encoder_outputs"]) == len(expected) - 1
        for ours, theirs in zip(outputs["encoder_outputs"], expected[1:], strict=True):
            np.testing.assert_allclose(ours[0].numpy()[tokens], theirs[tokens], rtol=0, atol=tolerance)
        np.testing.assert_array_equal(outputs["sequence_output"], outputs["encoder_outputs"][-1])
        np.testing.assert_array_equal(outputs["default"], outputs["pooled_output"])
        if f"{case}.pooled" in golden.files:
            np.testing.assert_allclose(
                outputs["pooled_output"][0], golden[f"{case}.pooled"], rtol=0, atol=tolerance
            )
        else:  # no pooler: the first token's state, as documented
            np.testing.assert_array_equal(outputs["pooled_output"], outputs["sequence_output"][:, 0])


@pytest.mark.parametrize("hidden_act", ["gelu", "gelu_new", "relu", "silu"])
@pytest.mark.parametrize("layer_norm_eps", [1e-12, 1e-3])
def test_both_ways_through_transformers(
    tmp_path: Path, hidden_act: str, layer_norm_eps: float, batch: dict[str, np.ndarray]
) -> None:
    """Random weights saved by transformers, loaded here; saved here, loaded by transformers."""
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    theirs = transformers.BertModel(
        transformers.BertConfig(
            vocab_size=97,
            hidden_size=24,
            num_hidden_layers=3,
            num_attention_heads=4,
            intermediate_size=40,
            max_position_embeddings=32,
            hidden_act=hidden_act,
            layer_norm_eps=layer_norm_eps,
            initializer_range=0.3,  # wide, so that every part of the arithmetic shows in the result
        )
    ).eval()
    theirs.save_pretrained(tmp_path / "theirs")
    ours = BertEncoder.from_pretrained(tmp_path / "theirs")
    ours.save_pretrained(tmp_path / "ours")
    again = transformers.AutoModel.from_pretrained(tmp_path / "ours").eval()
    assert type(again).__name__ == "BertModel"
    outputs = ours(batch)
    tokens = batch["input_mask"] == 1
    for model in (theirs, again):
        with torch.no_grad():
            expected = model(
                input_ids=torch.tensor(batch["input_word_ids"]).long(),
                attention_mask=torch.tensor(batch["input_mask"]),
                token_type_ids=torch.tensor(batch["input_type_ids"]).long(),
                output_hidden_states=True,
            )
        for mine, other in zip(outputs["encoder_outputs"], expected.hidden_states[1:], strict=True):
            np.testing.assert_allclose(mine.numpy()[tokens], other.numpy()[tokens], rtol=0, atol=1e-4)
        np.testing.assert_allclose(outputs["pooled_output"], expected.pooler_output, rtol=0, atol=1e-4)


def test_minilm_written_by_us_is_read_by_transformers(tmp_path: Path, minilm: Path) -> None:
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    ours = BertEncoder.from_pretrained(minilm)
    ours.save_pretrained(tmp_path)
    theirs = transformers.AutoModel.from_pretrained(tmp_path).eval()
    ids = np.array([[101, 7592, 2088, 102, 0, 0], [101, 2129, 2024, 2017, 1029, 102]], np.int32)
    mask = (ids != 0).astype(np.int32)
    outputs = ours({"input_word_ids": ids, "input_mask": mask, "input_type_ids": np.zeros_like(ids)})
    with torch.no_grad():
        expected = theirs(torch.tensor(ids).long(), torch.tensor(mask), output_hidden_states=True)
    for mine, other in zip(outputs["encoder_outputs"], expected.hidden_states[1:], strict=True):
        np.testing.assert_allclose(mine.numpy()[mask == 1], other.numpy()[mask == 1], rtol=0, atol=1e-4)


def test_masked_lm_against_transformers(tmp_path: Path, batch: dict[str, np.ndarray]) -> None:
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(1)
    theirs = transformers.BertForMaskedLM(
        transformers.BertConfig(
            vocab_size=97,
            hidden_size=24,
            num_hidden_layers=2,
            num_attention_heads=4,
            intermediate_size=40,
            max_position_embeddings=32,
            initializer_range=0.3,
        )
    ).eval()
    torch.nn.init.normal_(theirs.cls.predictions.bias)
    theirs.save_pretrained(tmp_path / "theirs")
    with pytest.warns(UserWarning, match="holds no pooler"):
        ours = BertEncoder.from_pretrained(tmp_path / "theirs")
    ours.save_pretrained(tmp_path / "ours")
    again = transformers.AutoModelForMaskedLM.from_pretrained(tmp_path / "ours").eval()
    positions = np.array([[0, 3, 15], [2, 2, 8], [0, 1, 2], [11, 4, 0]], np.int32)
    logits = ours.mlm({**batch, "masked_lm_positions": positions})["mlm_logits"]
    for model in (theirs, again):
        with torch.no_grad():
            expected = model(
                input_ids=torch.tensor(batch["input_word_ids"]).long(),
                attention_mask=torch.tensor(batch["input_mask"]),
                token_type_ids=torch.tensor(batch["input_type_ids"]).long(),
            ).logits.numpy()
        expected = np.take_along_axis(expected, positions[..., None], axis=1)
        np.testing.assert_allclose(logits, expected, rtol=0, atol=1e-4)
