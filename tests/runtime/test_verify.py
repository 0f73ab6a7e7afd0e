"""`verify` passes on what was exported and fails on each kind of damage, naming what to suspect."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from click.testing import CliRunner

from tests.runtime.artifacts import SHAPES, change_manifest, write_artifact
from tests.runtime.conftest import Board
from tests.runtime.encoders import SMALL, small_encoder
from tfbert_npu import BertConfig, export_onnx
from tfbert_npu.artifact.hashing import sha256_of
from tfbert_npu.artifact.manifest import Manifest, SupportFile
from tfbert_npu.artifact.reference import REFERENCE, Reference
from tfbert_npu.cli.verify import verify as command
from tfbert_npu.errors import ArtifactError
from tfbert_npu.heads import head_named, heads
from tfbert_npu.models.head import BertHead
from tfbert_npu.runtime.files import Artifact
from tfbert_npu.runtime.load import Options
from tfbert_npu.runtime.verify import Verification, verify

Change = Callable[[onnx.ModelProto], None]


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("verify")
    return export_onnx(small_encoder(), folder / "onnx")


def on_board(exported: Path, directory: Path, change: Change | None = None, **options: Any) -> Path:
    """The artifact that `export_rknn` would write; `change` is what the NPU gets wrong."""
    manifest = Manifest.read(exported)
    assert manifest.onnx_file is not None
    graph = onnx.load(exported / "model.onnx")
    if change is not None:
        change(graph)
    write_artifact(
        directory,
        payload=graph.SerializeToString(),
        onnx=(exported / "model.onnx").read_bytes(),
        config=json.loads((exported / "config.json").read_text()),
        inputs=manifest.onnx_file.inputs,
        outputs=manifest.onnx_file.outputs,
        source_sha256=manifest.source_sha256,
        **options,
    )
    put(directory, (exported / REFERENCE).read_bytes())
    change_manifest(directory, gate={"min_cosine": 0.9999})
    return directory


def put(directory: Path, content: bytes) -> None:
    """Put a reference into an artifact, and into its manifest."""
    path = directory / REFERENCE
    path.write_bytes(content)
    kept = [entry for entry in Manifest.read(directory).support if entry.kind != "reference"]
    entry = SupportFile(REFERENCE, "reference", sha256_of(path), path.stat().st_size)
    change_manifest(directory, support=(*kept, entry))


def run(directory: Path, backend: Any = "rknn") -> Verification:
    return verify(Artifact.open(directory), Options(backend=backend))


def after(name: str, *, scale: float = 1.0, source: str | None = None) -> Change:
    """Compute an output from another one, times a number."""

    def change(graph: onnx.ModelProto) -> None:
        for node in graph.graph.node:
            node.output[:] = [f"{one}_before" if one == name else one for one in node.output]
            node.input[:] = [f"{one}_before" if one == name else one for one in node.input]
        graph.graph.initializer.append(onnx.numpy_helper.from_array(np.float32(scale), "the_scale"))
        graph.graph.node.append(
            onnx.helper.make_node("Mul", [source or f"{name}_before", "the_scale"], [name])
        )

    return change


def other_weights(graph: onnx.ModelProto) -> None:
    rng = np.random.default_rng(0)
    for tensor in graph.graph.initializer:
        value = onnx.numpy_helper.to_array(tensor)
        if value.dtype == np.float32 and value.ndim == 2 and value.size > 100:
            new = rng.permutation(value.ravel()).reshape(value.shape)
            tensor.CopyFrom(onnx.numpy_helper.from_array(new, tensor.name))


def leaking(graph: onnx.ModelProto) -> None:
    """A little of the mean over the batch is added to every text: far less than the gate's cosine forbids."""
    after("pooled_output")(graph)
    nodes = graph.graph.node
    nodes[-1].output[:] = ["alone"]
    nodes.append(onnx.helper.make_node("ReduceMean", ["alone"], ["mean"], axes=[0], keepdims=1))
    graph.graph.initializer.append(onnx.numpy_helper.from_array(np.float32(2e-3), "share"))
    nodes.append(onnx.helper.make_node("Mul", ["mean", "share"], ["leak"]))
    nodes.append(onnx.helper.make_node("Add", ["alone", "leak"], ["pooled_output"]))


def test_what_was_exported_passes_at_every_shape(exported: Path, tmp_path: Path, board: Board) -> None:
    board()
    found = run(on_board(exported, tmp_path / "a"))
    assert found.passed, found.problems
    assert {verdict.shape for verdict in found.verdicts} == set(SHAPES)
    assert {verdict.output for verdict in found.verdicts} == {"pooled_output", "sequence_output"}
    assert all(verdict.texts for verdict in found.verdicts)
    assert max(verdict.relative for verdict in found.verdicts) < 1e-3
    assert run(tmp_path / "a", "onnx").passed


@pytest.mark.parametrize(
    ("change", "suspect"),
    [
        (after("pooled_output", scale=1.05), "the pooler is right, so its product and its Tanh"),
        (after("pooled_output", scale=-1.0), "cosine -1.0"),
        (other_weights, "everything is wrong, so the weights"),
        (leaking, "a text changes the texts beside it"),
        (after("sequence_output", scale=float("nan")), "numbers that are NaN"),
    ],
    ids=["tanh_off_by_5_percent", "sign", "other_weights", "leak", "nan"],
)
def test_a_fault_of_the_npu_fails(
    exported: Path, tmp_path: Path, board: Board, change: Change, suspect: str
) -> None:
    board()
    found = run(on_board(exported, tmp_path / "a", change))
    assert not found.passed
    assert suspect in "\n".join(found.problems)
    result = CliRunner().invoke(command, [str(tmp_path / "a"), "--backend", "rknn"])
    assert result.exit_code == 1
    assert suspect.split(" ", maxsplit=1)[0] in result.output


def test_swapped_outputs_fail(tmp_path: Path, board: Board) -> None:
    board()
    model = small_encoder()
    directory = export_onnx(model, tmp_path / "onnx", ["encoder_outputs"])
    names = [spec.name for spec in Manifest.read(directory).onnx_file.outputs]  # type: ignore[union-attr]
    assert len(names) == 2

    def swap(graph: onnx.ModelProto) -> None:
        renamed = {names[0]: names[1], names[1]: names[0]}
        for node in graph.graph.node:
            node.output[:] = [renamed.get(one, one) for one in node.output]
            node.input[:] = [renamed.get(one, one) for one in node.input]

    assert run(on_board(directory, tmp_path / "right")).passed
    assert not run(on_board(directory, tmp_path / "swapped", swap)).passed


@pytest.mark.parametrize("name", ["model.rknn", "model.onnx", REFERENCE, "config.json"])
def test_a_flipped_bit_fails(exported: Path, tmp_path: Path, board: Board, name: str) -> None:
    board()
    directory = on_board(exported, tmp_path / "a")
    content = bytearray((directory / name).read_bytes())
    content[len(content) // 2] ^= 1
    (directory / name).write_bytes(content)
    with pytest.raises(ArtifactError, match=r"SHA-256|header"):
        run(directory)


def test_a_shape_that_fails_is_named_with_the_static_layout(
    exported: Path, tmp_path: Path, board: Board
) -> None:
    def only_short(graph: onnx.ModelProto) -> None:
        """Longer texts than 32 get another scale: the shape's length decides."""
        after("pooled_output")(graph)
        nodes = graph.graph.node
        nodes[-1].output[:] = ["right"]
        constants = {
            "axis_one": np.int64(1),
            "the_limit": np.int64(40),
            "good": np.float32(1),
            "bad": np.float32(2),
        }
        for key, value in constants.items():
            graph.graph.initializer.append(onnx.numpy_helper.from_array(np.array(value), key))
        nodes.append(onnx.helper.make_node("Shape", ["input_word_ids"], ["the_dims"]))
        nodes.append(onnx.helper.make_node("Gather", ["the_dims", "axis_one"], ["the_length"], axis=0))
        nodes.append(onnx.helper.make_node("Less", ["the_length", "the_limit"], ["short"]))
        nodes.append(onnx.helper.make_node("Where", ["short", "good", "bad"], ["factor"]))
        nodes.append(onnx.helper.make_node("Mul", ["right", "factor"], ["pooled_output"]))

    board()
    found = run(on_board(exported, tmp_path / "a", only_short))
    text = "\n".join(found.problems)
    assert "1x64: pooled_output differs" in text
    assert "1x16, 1x32, 4x16 passed from the same file" in text
    assert "--layout static" in text


def test_the_reference_of_another_artifact_is_named(exported: Path, tmp_path: Path, board: Board) -> None:
    board()
    directory = on_board(exported, tmp_path / "a")
    other = export_onnx(small_encoder(seed=1), tmp_path / "other")
    put(directory, (other / REFERENCE).read_bytes())
    with pytest.raises(ArtifactError, match="is of other weights than its manifest"):
        run(directory)


@pytest.mark.parametrize("damage", ["text", "empty", "pickle", "shapes", "missing"])
def test_a_reference_that_cannot_be_read_is_one_sentence(
    exported: Path, tmp_path: Path, board: Board, damage: str
) -> None:
    board()
    directory = on_board(exported, tmp_path / "a")
    target = tmp_path / "new.npz"
    kept = Reference.read(exported)
    if damage == "pickle":
        np.savez(target, source_sha256=np.array([{"a": 1}], dtype=object))
    elif damage == "shapes":
        inputs = {name: value[:1] if "ids" in name else value for name, value in kept.inputs.items()}
        Reference(inputs, kept.outputs, kept.places, kept.source_sha256).write(tmp_path)
        target = tmp_path / REFERENCE
    elif damage == "missing":
        np.savez(target, **{f"inputs/{name}": value for name, value in kept.inputs.items()})
    else:
        target.write_bytes(b"" if damage == "empty" else b"<html>")
    put(directory, target.read_bytes())
    with pytest.raises(
        ArtifactError, match=r"reference.npz cannot be read \(.*copy or export the directory again"
    ):
        run(directory)


def test_an_artifact_of_an_older_version_says_so(artifact: Path, board: Board) -> None:
    board()
    result = CliRunner().invoke(command, [str(artifact)])
    assert isinstance(result.exception, FileNotFoundError)
    assert "holds no reference.npz; export it again" in str(result.exception)


@pytest.mark.parametrize("head", [head.name for head in heads() if head.name != "encoder"])
def test_the_artifact_of_every_head_passes(head: str, tmp_path: Path) -> None:
    import keras

    keras.utils.set_random_seed(0)
    labels = {"num_labels": 3} if any(x.units == "L" for x in head_named(head).layers) else {}
    model = BertHead.class_of(head_named(head))(BertConfig(**SMALL), **labels)
    model.build()
    directory = export_onnx(model, tmp_path / "m")
    result = CliRunner().invoke(command, [str(directory), "--json"])
    assert result.exit_code == 0, result.output
    found = json.loads(result.output)
    assert found["passed"]
    assert len(found["verdicts"]) >= 2 * len(head_named(head).outputs)


def test_masked_positions_and_hidden_states(tmp_path: Path) -> None:
    from tfbert_npu import BertForMaskedLM

    model = BertForMaskedLM(BertConfig(**SMALL))
    model.build()
    assert run(export_onnx(model, tmp_path / "m", masked_positions=5), "onnx").passed
    directory = export_onnx(model.encoder, tmp_path / "e", ["encoder_outputs"], embeddings="host")
    assert run(directory, "onnx").passed


def test_a_large_vocabulary_does_not_make_a_large_file(tmp_path: Path) -> None:
    from tfbert_npu import BertForMaskedLM

    model = BertForMaskedLM(BertConfig(**{**SMALL, "vocab_size": 30000}))
    model.build()
    directory = export_onnx(model, tmp_path / "m")
    assert (directory / REFERENCE).stat().st_size < 5 * 2**20
    assert run(directory, "onnx").passed
