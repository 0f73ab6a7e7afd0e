"""Packed texts: which go together, that none sees another, and the numbers of each alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.runtime.artifacts import change_manifest, requests, write_artifact
from tests.runtime.conftest import Board
from tests.runtime.encoders import SMALL, small_encoder
from tests.runtime.test_verify import put, run
from tfbert_npu import BertConfig, BertForSequenceClassification, BertForTokenClassification, export_onnx
from tfbert_npu.artifact.embeddings import HostEmbeddings
from tfbert_npu.artifact.manifest import Manifest
from tfbert_npu.artifact.packing import FREE_LENGTH, pack
from tfbert_npu.artifact.reference import REFERENCE
from tfbert_npu.export.rknn import export_rknn
from tfbert_npu.runtime import load_npu

WIDTH = 64


@given(st.lists(st.integers(1, 64), max_size=60), st.sampled_from([(), (64,), (16, 64), (16, 32, 64)]))
def test_every_text_once_in_rows_that_hold_them(lengths: list[int], widths: tuple[int, ...]) -> None:
    packs = pack(lengths, widths)
    assert sorted(int(row) for one in packs for row in one.rows) == list(range(len(lengths)))
    for one in packs:
        np.testing.assert_array_equal(one.lengths, [lengths[row] for row in one.rows])
        np.testing.assert_array_equal(one.starts, np.cumsum([0, *one.lengths[:-1]]))
        used = int(one.lengths.sum())
        assert used <= one.width <= (max(widths) if widths else FREE_LENGTH)
        # No narrower row would do, and no two rows could have been one.
        assert not any(used <= width < one.width for width in widths)
    totals = sorted(int(one.lengths.sum()) for one in packs)
    assert len(totals) < 2 or totals[0] + totals[1] > (max(widths) if widths else FREE_LENGTH)


def test_a_text_longer_than_a_free_row_makes_it_longer() -> None:
    packs = pack([300, 100, 100, 60], ())
    assert [(list(one.rows), one.width) for one in packs] == [([0], 304), ([1, 2, 3], 272)]


@pytest.fixture(scope="module")
def encoder() -> Any:
    return small_encoder()


@pytest.fixture(scope="module")
def exported(encoder: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export_onnx(encoder, tmp_path_factory.mktemp("packed") / "m", packed=True)


def on_board(exported: Path, directory: Path, payload: bytes | None = None) -> Path:
    manifest = Manifest.read(exported)
    assert manifest.onnx_file is not None
    content = (exported / "model.onnx").read_bytes()
    write_artifact(
        directory,
        shapes=((1, WIDTH),),
        payload=payload or content,
        onnx=content,
        config=json.loads((exported / "config.json").read_text()),
        inputs=manifest.onnx_file.inputs,
        outputs=manifest.onnx_file.outputs,
        source_sha256=manifest.source_sha256,
        tables=HostEmbeddings.load(exported),
    )
    return directory


def alone(encoder: Any, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    outputs = encoder(inputs, training=False)
    return {name: np.asarray(outputs[name]) for name in ("pooled_output", "sequence_output")}


def assert_equal(got: dict[str, Any], wanted: dict[str, np.ndarray], mask: np.ndarray) -> None:
    # The tables on the host are float16; the rest is float32.
    np.testing.assert_allclose(got["pooled_output"], wanted["pooled_output"], atol=2e-3)
    real = mask == 1
    np.testing.assert_allclose(got["sequence_output"][real], wanted["sequence_output"][real], atol=5e-3)


@pytest.mark.parametrize("backend", ["onnx", "rknn"])
def test_each_text_has_the_vectors_that_it_has_alone(
    encoder: Any, exported: Path, tmp_path: Path, board: Board, backend: Any
) -> None:
    board()
    inputs = requests(np.random.default_rng(0), 40, WIDTH, SMALL["vocab_size"])
    with load_npu(on_board(exported, tmp_path / "a"), backend) as model:
        got = model(inputs)
        assert_equal(got, alone(encoder, inputs), inputs["input_mask"])
        np.testing.assert_array_equal(got["default"], got["pooled_output"])
        assert set(model.output_names) == {"sequence_output", "pooled_output"}
        stats = model.stats()
        assert stats.texts == 40
        # Rows of 64 tokens, nearly full: a text alone in each would compute 40 of them.
        assert stats.computed_tokens <= 1.2 * stats.tokens + WIDTH
        empty = model({name: value[:0] for name, value in inputs.items()})
        assert empty["pooled_output"].shape == (0, SMALL["hidden_size"])


@pytest.mark.parametrize("backend", ["onnx", "rknn"])
def test_no_text_sees_another(exported: Path, tmp_path: Path, board: Board, backend: Any) -> None:
    board()
    inputs = requests(np.random.default_rng(1), 12, WIDTH, SMALL["vocab_size"])
    with load_npu(on_board(exported, tmp_path / "a"), backend) as model:
        before = model(inputs)
        for changed in (0, 5, 11):
            ids = inputs["input_word_ids"].copy()
            real = inputs["input_mask"][changed] == 1
            ids[changed, real] = (ids[changed, real] + 17) % SMALL["vocab_size"]
            after = model({**inputs, "input_word_ids": ids})
            others = np.arange(12) != changed
            for name in ("pooled_output", "sequence_output"):
                np.testing.assert_array_equal(after[name][others], before[name][others])
                assert not np.array_equal(after[name][changed], before[name][changed])


def test_holes_in_the_mask_and_a_text_without_tokens(encoder: Any, exported: Path) -> None:
    inputs = requests(np.random.default_rng(2), 6, 24, SMALL["vocab_size"])
    inputs["input_mask"][0] = 0
    inputs["input_mask"][1, :24:3] = 0
    inputs["input_mask"][1, 23] = 1
    rest = {name: value[1:] for name, value in inputs.items()}
    with load_npu(exported, "onnx") as model:
        got = model(inputs)
        assert np.isfinite(got["pooled_output"]).all()
        got = {name: got[name][1:] for name in ("pooled_output", "sequence_output")}
        assert_equal(got, alone(encoder, rest), rest["input_mask"])


def test_distilbert_and_a_head_with_an_output_for_each_token(tmp_path: Path) -> None:
    import keras

    keras.utils.set_random_seed(0)
    config = BertConfig(**{**SMALL, "model_type": "distilbert", "type_vocab_size": 0})
    model = BertForTokenClassification(config, num_labels=3)
    model.build()
    inputs = requests(np.random.default_rng(3), 9, 24, SMALL["vocab_size"])
    del inputs["input_type_ids"]
    with load_npu(export_onnx(model, tmp_path / "m", packed=True), "onnx") as packed:
        got = packed(inputs)["logits"]
        real = inputs["input_mask"] == 1
        np.testing.assert_allclose(got[real], np.asarray(model(inputs))[real], atol=2e-3)


def test_verify_finds_texts_that_see_each_other(exported: Path, tmp_path: Path, board: Board) -> None:
    board()
    graph = onnx.load(exported / "model.onnx")
    for node in graph.graph.node:  # as a runtime that takes the bias of the first row for all
        if node.op_type == "Unsqueeze" and "attention_bias" in node.input:
            node.input[list(node.input).index("attention_bias")] = "one_row"
            place = list(graph.graph.node).index(node)
            cut = onnx.helper.make_node("Slice", ["attention_bias", "s0", "s1", "s2"], ["one_row"])
            graph.graph.node.insert(place, cut)
            break
    for name, value in {"s0": [0], "s1": [1], "s2": [1]}.items():
        graph.graph.initializer.append(onnx.numpy_helper.from_array(np.array(value), name))
    for kind, payload in (("right", None), ("wrong", graph.SerializeToString())):
        directory = on_board(exported, tmp_path / kind, payload)
        put(directory, (short_reference(tmp_path / f"reference_{kind}")).read_bytes())
        change_manifest(directory, gate={"min_cosine": 0.9999})
        found = run(directory)
        assert found.passed == (kind == "right"), found.problems
        if kind == "wrong":
            assert any("a text changes the texts beside it" in problem for problem in found.problems)


def short_reference(directory: Path) -> Path:
    """The reference of the same weights for rows of 64 tokens."""
    from tfbert_npu.export.reference import write_reference
    from tfbert_npu.export.source import source_of
    from tfbert_npu.onnx.model import GraphOptions

    directory.mkdir()
    source = source_of(small_encoder())
    write_reference(directory, source, [16, WIDTH], None, None, GraphOptions())
    return directory / REFERENCE


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"shapes": ((4, 16),)}, "a packed row is the batch"),
        ({"shapes": ((1, 16), (1, 32))}, "packed files hold one shape each"),
        ({"precision": "w8a8"}, "computed in fp16, not in w8a8"),
        ({"masked_positions": 3}, "masked_positions are for one text in a row"),
    ],
)
def test_what_cannot_be_packed(encoder: Any, tmp_path: Path, options: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        export_rknn(encoder, tmp_path / "m", packed=True, **{"shapes": ((1, 16),), **options})
    assert not list(tmp_path.iterdir())


def test_a_head_with_one_output_for_a_text_is_refused(tmp_path: Path) -> None:
    model = BertForSequenceClassification(BertConfig(**SMALL), num_labels=2)
    model.build()
    with pytest.raises(ValueError, match="sequence_classification gives one for each text"):
        export_onnx(model, tmp_path / "m", packed=True)
    assert not list(tmp_path.iterdir())
