"""Directories of rk-transformers: no manifest, Hugging Face's names, one static shape."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from tests.runtime.artifacts import HIDDEN, requests, write_foreign
from tests.runtime.conftest import Board
from tests.runtime.encoders import small_encoder
from tests.runtime.expected import assert_right
from tests.tiny_bert import TOKENS
from tfbert_npu import SentenceEncoder, pull_from_hub
from tfbert_npu.artifact import TensorSpec
from tfbert_npu.cli.embed import embed
from tfbert_npu.delegate import MissingOutputError
from tfbert_npu.errors import ArtifactError, CheckpointError, TaskError
from tfbert_npu.runtime import load_npu
from tfbert_npu.runtime.files import Artifact

HIDDEN_STATES = {"last_hidden_state": (-1, -1, HIDDEN)}


@pytest.fixture
def sample(shared: Path) -> Path:
    return shared / "data" / "rknn" / "rk_transformers_random_bert"


def test_what_a_real_file_says_of_itself(sample: Path) -> None:
    artifact = Artifact.open(sample)
    (model,) = artifact.manifest.models
    assert (model.path, model.kind) == ("rknn/model_b1_s32_o3.rknn", "rknn")
    assert (model.shapes, model.platform, model.toolkit_version) == (((1, 32),), "rk3588", "2.3.2")
    assert model.inputs == tuple(
        TensorSpec(name, "int64", (-1, -1)) for name in ("input_word_ids", "input_mask", "input_type_ids")
    )
    assert model.outputs == (TensorSpec("sequence_output", "float32", (-1, -1, 32)),)
    assert artifact.manifest.head == "encoder"
    assert artifact.config.hidden_size == 32


def test_a_real_file_on_the_wrong_board(sample: Path, board: Board) -> None:
    board("rk3576", cores=2)
    with pytest.raises(ArtifactError, match="is for rk3588 and this board is rk3576"):
        load_npu(sample)


@pytest.mark.parametrize("dtype", ["int16", "int32", "int64"])
def test_requests(tmp_path: Path, board: Board, dtype: str) -> None:
    driver = board()
    with load_npu(write_foreign(tmp_path / "rk", dtype=dtype)) as model:
        assert model.runs_on == "rknn"
        for batch, width in ((1, 32), (5, 20), (2, 60)):
            inputs = requests(np.random.default_rng(batch), batch, width, vocabulary=30_000)
            inputs = {name: value * (np.arange(width) < 32) for name, value in inputs.items()}
            outputs = model(inputs)
            assert outputs.keys() == {"pooled_output", "default", "sequence_output"}
            assert_right(outputs, {name: np.asarray(value, np.int32) for name, value in inputs.items()})
        assert driver.seen[-1][0][0] == f"token_type_ids:{dtype}"
        with pytest.raises(ValueError, match="a text has 33 tokens and the longest compiled shape takes 32"):
            model({name: np.ones((1, 33), np.int32) for name in inputs})
    assert driver.open == {}


def test_an_id_that_does_not_fit_is_refused(tmp_path: Path, board: Board) -> None:
    board()
    inputs = {name: np.ones((1, 8), np.int32) for name in ("input_word_ids", "input_mask", "input_type_ids")}
    with load_npu(write_foreign(tmp_path / "rk", dtype="int16")) as model:
        inputs["input_word_ids"][0, 3] = 32_767
        assert_right(model(inputs), inputs)
        inputs["input_word_ids"][0, 3] = 32_768
        message = (
            "input_word_ids holds 32768 and the artifact takes int16, up to 32767; export the model with"
        )
        with pytest.raises(ValueError, match=message):
            model(inputs)


def test_without_token_types(tmp_path: Path, board: Board) -> None:
    board()
    directory = write_foreign(tmp_path / "rk", inputs=("input_ids", "attention_mask"))
    inputs = requests(np.random.default_rng(0), 3, 20)
    with load_npu(directory) as model:
        with pytest.raises(
            ValueError, match="takes no input_type_ids, so that it would read a second text as"
        ):
            model(inputs)
        inputs["input_type_ids"][:] = 0
        assert_right(model(inputs), inputs)


def test_one_of_several_files_must_be_named(tmp_path: Path, board: Board) -> None:
    board()
    files = {"model.rknn": (1, 16), "rknn/model_b4_s64.rknn": (4, 64)}
    directory = write_foreign(tmp_path / "rk", files=files)
    with pytest.raises(ArtifactError, match=r"--file or file=: model.rknn, rknn/model_b4_s64.rknn"):
        load_npu(directory)
    for name, shape in files.items():
        with load_npu(directory, file=name) as model:
            assert model.shapes == (shape,)
            inputs = requests(np.random.default_rng(0), 3, 16)
            assert_right(model(inputs), inputs)
    with pytest.raises(
        FileNotFoundError, match=r"m.rknn is missing; the directory holds model.rknn, rknn/model"
    ):
        load_npu(directory, file="m.rknn")
    with pytest.raises(CheckpointError, match="not a path inside it"):
        load_npu(directory, file="../model.rknn")
    with pytest.raises(ValueError, match="file names a compiled model and has no encoder"):
        pull_from_hub(directory, file="model.rknn", component="encoder")
    with pull_from_hub(directory, file="rknn/model_b4_s64.rknn") as model:
        assert model.shapes == ((4, 64),)
        assert_right(model(inputs), inputs)
    with pull_from_hub(write_foreign(tmp_path / "one")) as model:
        assert_right(model(inputs), inputs)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"inputs": ("input_ids", "token_type_ids")},
            "takes input_ids, token_type_ids, and BERT's inputs are",
        ),
        ({"inputs": ("input_ids", "attention_mask", "position_ids")}, "position_ids, and BERT's inputs are"),
        ({"dtype": "float16"}, "takes input_ids as float16 of rank 2 where ids are integers"),
    ],
)
def test_files_that_no_text_can_be_given_to(
    tmp_path: Path, board: Board, options: dict, message: str
) -> None:
    board()
    with pytest.raises(ArtifactError, match=message):
        load_npu(write_foreign(tmp_path / "rk", **options))


def test_a_damaged_file(tmp_path: Path, board: Board) -> None:
    board()
    directory = write_foreign(tmp_path / "rk")
    path = directory / "rknn" / "model_b1_s32_o3.rknn"
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(ArtifactError, match=r"damaged or no \.rknn file"):
        load_npu(directory)


def test_no_encoder_is_delegated_unless_the_weights_may_differ(tmp_path: Path, board: Board) -> None:
    board()
    encoder = small_encoder()
    config = encoder.config.to_huggingface("BertModel")
    directory = write_foreign(tmp_path / "rk", config=config, outputs=HIDDEN_STATES)
    with pytest.raises(ArtifactError, match="does not say which weights it was made from"):
        encoder.delegate_to(directory)
    assert encoder.runs_on == "tf"
    encoder.delegate_to(directory, allow_other_weights=True)
    inputs = requests(np.random.default_rng(0), 2, 20, vocabulary=97)
    outputs = encoder(inputs)
    with pytest.raises(MissingOutputError, match="pooled_output is not in"):
        np.asarray(outputs["pooled_output"])
    with load_npu(directory) as model:
        np.testing.assert_array_equal(outputs["sequence_output"], model(inputs)["sequence_output"])
    assert encoder.get_config()["delegation"]["file"] is None
    encoder.undelegate()


def test_the_computer_without_an_npu_says_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(
        ArtifactError, match="holds no ONNX file of ours, without which it runs on a board only"
    ):
        load_npu(write_foreign(tmp_path / "rk"))


def write_words(directory: Path) -> None:
    (directory / "vocab.txt").write_text("\n".join(TOKENS) + "\n")
    (directory / "tokenizer_config.json").write_text(json.dumps({"do_lower_case": True}))


@pytest.mark.parametrize(
    ("outputs", "vectors"),
    [
        ({"token_embeddings": (-1, -1, HIDDEN), "sentence_embedding": (-1, HIDDEN)}, "mean"),
        ({"sentence_embedding": (-1, HIDDEN)}, "ready"),
        ({"last_hidden_state": (-1, -1, HIDDEN)}, "mean"),
    ],
)
def test_sentence_vectors_of_foreign_outputs(
    tmp_path: Path, board: Board, outputs: dict[str, tuple[int, ...]], vectors: str
) -> None:
    board()
    directory = write_foreign(tmp_path / "model", outputs=outputs)
    write_words(directory)
    with SentenceEncoder.from_pretrained(directory, "rknn") as encoder:
        got = encoder.encode(["the cat sat", "a dog"])
        inputs = encoder.tokenizer(["the cat sat", "a dog"], seq_length=32)
        with load_npu(directory, "rknn") as model:
            computed = model(inputs)
    if vectors == "ready":
        wanted = computed["sentence_embedding"]
    else:
        weights = inputs["input_mask"][..., None]
        wanted = (computed["sequence_output"] * weights).sum(axis=1) / weights.sum(axis=1)
    np.testing.assert_allclose(got, wanted, rtol=1e-5)


@pytest.mark.parametrize(
    ("outputs", "pooling", "named"),
    [
        ({"token_embeddings": (-1, -1, HIDDEN)}, "pooler", "no pooled_output"),
        ({"pooler_output": (-1, HIDDEN)}, None, "no sequence_output"),
    ],
)
def test_a_missing_output_is_said_before_a_text_is_read(
    tmp_path: Path, board: Board, outputs: dict[str, tuple[int, ...]], pooling: str | None, named: str
) -> None:
    board()
    directory = write_foreign(tmp_path / "model", outputs=outputs)
    write_words(directory)
    arguments = [str(directory), "--backend", "rknn", *(["--pooling", pooling] if pooling else [])]
    result = CliRunner().invoke(embed, arguments, input="a text that nobody reads\n")
    assert isinstance(result.exception, TaskError)
    assert named in str(result.exception)
    assert result.output == ""
