"""Damaged and hostile repositories: one sentence each, nothing run, nothing half written."""

from __future__ import annotations

import json
import os
import pickle
import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tensorflow.core.protobuf import saved_model_pb2

from tfbert_npu import BertConfig, BertEncoder, export_saved_model, pull_from_hub
from tfbert_npu.checkpoints import tfhub
from tfbert_npu.checkpoints.saved_model import read_saved_model
from tfbert_npu.errors import ArtifactError, CheckpointError, TfbertNpuError, VocabularyError

CONFIG = BertConfig(
    vocab_size=30, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=12
)


def one_sentence(error: BaseException) -> bool:
    return "\n" not in str(error) and len(str(error)) < 1000


# -- SavedModels with dangerous operations


def _module(body: Callable[[tf.Tensor], tf.Tensor], path: Path) -> Path:
    module = tf.Module()
    module.v = tf.Variable(1.0)
    module.__call__ = tf.function(body, input_signature=[tf.TensorSpec([], tf.string)])
    tf.saved_model.save(module, str(path))
    return path


BODIES = {
    "ReadFile": lambda x: tf.io.read_file(x),
    "WriteFile": lambda x: (tf.io.write_file("/nowhere/x", x), x)[1],
    "PyFunc": lambda x: tf.numpy_function(lambda y: y, [x], tf.string),
    "EagerPyFunc": lambda x: tf.py_function(lambda y: y, [x], tf.string),
    "MatchingFiles": lambda x: tf.io.matching_files(x)[0],
    "RestoreV2": lambda x: tf.raw_ops.RestoreV2(
        prefix=x, tensor_names=["a"], shape_and_slices=[""], dtypes=[tf.string]
    )[0],
}


@pytest.mark.parametrize("op", sorted(BODIES))
@pytest.mark.parametrize("trust", [False, True])
def test_dangerous_operations_are_refused_by_name(op: str, trust: bool, tmp_path: Path) -> None:
    path = _module(BODIES[op], tmp_path / "model")
    with pytest.raises(CheckpointError, match=rf"run code or touch files on this machine \({op}") as caught:
        pull_from_hub(path, trust_saved_model=trust)
    assert one_sentence(caught.value)


# What an operation's name has when it touches files, networks, processes, devices or Python.
_TOUCHES = re.compile(
    r"File|Save|Restore|Dataset|Iterator|PyFunc|Debug|Print|Queue|Send|Recv|TPU|Collective|Nccl|Remote|Rpc|"
    r"Checkpoint|Summary|Sql|Launch|Session|Record|Reader|Kafka|BigQuery|Gcs|Snapshot|Custom|Abort|Lite|TRT"
)


def _registry() -> list[str]:
    from tensorflow.core.framework import op_def_pb2
    from tensorflow.python.client import pywrap_tf_session

    operations = op_def_pb2.OpList()
    operations.ParseFromString(pywrap_tf_session.TF_GetBuffer(pywrap_tf_session.TF_GetAllOpList()))
    return [operation.name for operation in operations.op]


def test_every_registered_operation_that_touches_something_is_refused(tmp_path: Path) -> None:
    """Each of them alone in a graph's function library, out of TensorFlow's whole registry."""
    registered = _registry()
    assert len(registered) > 1000
    suspicious = [name for name in registered if _TOUCHES.search(name)]
    assert len(suspicious) > 300
    path = _module(lambda x: x, tmp_path / "model")
    model = read_saved_model(path)
    function = model.meta_graph.graph_def.library.function.add()
    function.signature.name = "__inference_hidden_1"
    node = function.node_def.add(name="node")
    saver = {"Save", "SaveV2", "SaveSlices", "Restore", "RestoreV2", "RestoreSlice", "MergeV2Checkpoints"}
    saver |= {"ShardedFilename", "ShardedFilespec"}
    model.refuse_dangerous_ops(["", *saver])
    passed = []
    for name in suspicious:
        node.op = name
        try:
            model.refuse_dangerous_ops()
        except CheckpointError:
            continue
        passed.append(name)
    # The saver's own are refused where a caller reaches them, see below.
    assert set(passed) <= saver


def test_a_table_of_a_file_that_is_no_asset(tmp_path: Path) -> None:
    class Reads(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec([], tf.string)])
        def __call__(self, x):
            table = tf.raw_ops.HashTableV2(key_dtype=tf.string, value_dtype=tf.int64)
            tf.raw_ops.InitializeTableFromTextFileV2(
                table_handle=table, filename="/etc/passwd", key_index=-2, value_index=-1, vocab_size=-1,
                delimiter=" ",
            )  # fmt: skip
            return x

    tf.saved_model.save(Reads(), str(tmp_path / "model"))
    with pytest.raises(CheckpointError, match="InitializeTableFromTextFileV2"):
        read_saved_model(tmp_path / "model").refuse_dangerous_ops()


def test_a_function_cannot_pass_for_an_operation(tmp_path: Path) -> None:
    path = _module(lambda x: x, tmp_path / "model")
    model = read_saved_model(path)
    function = model.meta_graph.graph_def.library.function.add()
    function.signature.name = "ReadFile"
    function.node_def.add(name="node", op="ReadFile")
    with pytest.raises(CheckpointError, match="ReadFile"):
        model.refuse_dangerous_ops()


def test_dangerous_operations_deep_in_a_function_library(tmp_path: Path) -> None:
    inner = tf.function(lambda x: tf.cond(tf.strings.length(x) > 3, lambda: tf.io.read_file(x), lambda: x))
    path = _module(lambda x: inner(x), tmp_path / "model")
    with pytest.raises(CheckpointError, match="ReadFile"):
        pull_from_hub(path, trust_saved_model=True)


def test_allowed_operations_and_the_saver_of_every_saved_model(tmp_path: Path) -> None:
    class Reads(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec([], tf.string)])
        def __call__(self, name):
            return tf.io.read_file(name)

    tf.saved_model.save(Reads(), str(tmp_path / "model"))
    (tmp_path / "text").write_text("read")
    layer = pull_from_hub(tmp_path / "model", trust_saved_model=True, allow_ops=["ReadFile"])
    assert layer(tf.constant(str(tmp_path / "text"))).numpy() == b"read"
    with pytest.raises(CheckpointError, match="ReadFile"):
        pull_from_hub(tmp_path / "model", trust_saved_model=True, allow_ops=["PyFunc"])


# -- names that lead elsewhere


@pytest.fixture
def small(tmp_path: Path) -> Path:
    BertEncoder(CONFIG).save_pretrained(tmp_path / "small")
    return tmp_path / "small"


@pytest.mark.parametrize("name", ["../secret.safetensors", "/etc/passwd", "a/../../secret.safetensors"])
def test_an_index_that_names_files_elsewhere(small: Path, name: str) -> None:
    shutil.copy(small / "model.safetensors", small.parent / "secret.safetensors")
    (small / "model.safetensors").unlink()
    (small / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"x": name}}))
    with pytest.raises(CheckpointError, match=r"a file outside of its directory|not a path inside"):
        pull_from_hub(small)


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pristine")
    (folder / "vocab.txt").write_text("".join(f"w{i}\n" for i in range(30)))
    export_saved_model(
        BertEncoder(CONFIG), folder / "exported", vocab_file=folder / "vocab.txt", do_lower_case=True
    )
    return folder


@pytest.fixture
def exported(pristine: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(pristine, tmp_path, dirs_exist_ok=True)) / "exported"


def edited(directory: Path, edit: Callable[[saved_model_pb2.SavedModel], None]) -> None:
    path = directory / "saved_model.pb"
    message = saved_model_pb2.SavedModel.FromString(path.read_bytes())
    edit(message)
    path.write_bytes(message.SerializeToString())


@pytest.mark.parametrize("name", ["../../vocab.txt", "/etc/passwd"])
def test_an_asset_that_lies_elsewhere(exported: Path, name: str) -> None:
    def edit(message):
        for asset in message.meta_graphs[0].asset_file_def:
            asset.filename = name

    edited(exported, edit)
    with pytest.raises(CheckpointError, match="not a path inside it"):
        pull_from_hub(exported)


def test_an_asset_that_is_a_link(exported: Path) -> None:
    target = exported / "assets" / "vocab.txt"
    target.unlink()
    target.symlink_to("../../vocab.txt")
    with pytest.raises(CheckpointError, match="leads out of its directory"):
        pull_from_hub(exported)


# -- damaged files


def test_a_pickle_posing_as_safetensors(small: Path, tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self):
            return (os.mkdir, (str(tmp_path / "exploded"),))

    (small / "model.safetensors").write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(CheckpointError, match=r"no safetensors file"):
        pull_from_hub(small)
    (small / "model.safetensors").rename(small / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match=r"something else than tensors") as caught:
        pull_from_hub(small)
    assert one_sentence(caught.value)
    assert not (tmp_path / "exploded").exists()


def test_pickled_tensors_with_and_without_pytorch(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch = pytest.importorskip("torch")
    from safetensors.numpy import load_file

    tensors = load_file(small / "model.safetensors")
    expected = pull_from_hub(small)
    (small / "model.safetensors").unlink()
    torch.save({k: torch.from_numpy(v) for k, v in tensors.items()}, small / "pytorch_model.bin")
    again = pull_from_hub(small)
    for one, other in zip(again.weights, expected.weights, strict=True):
        assert np.array_equal(one, other) or "seed" in one.path
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(
        CheckpointError, match=r"only as a Python pickle .*which can run code; take a revision"
    ):
        pull_from_hub(small)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_hidden_layers": 1_000_000}, "num_hidden_layers must be a whole number from 1 to 1000"),
        ({"hidden_size": 16}, r"\[30, 8\], not \[30, 16\]"),
        ({"model_type": "gpt2"}, "model_type 'gpt2' is not supported"),
    ],
)
def test_a_configuration_that_cannot_be(small: Path, change: dict, message: str) -> None:
    path = small / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(CheckpointError, match=message):
        pull_from_hub(small)


@pytest.mark.parametrize("component", ["encoder", "model"])
@pytest.mark.parametrize("content", [b"{", b"[]", b"\xff\xfe\xfd", b"[" * 100_000])
def test_a_configuration_that_is_no_json_object(small: Path, component: str, content: bytes) -> None:
    (small / "config.json").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"config\.json") as caught:
        pull_from_hub(small, component=component)
    assert one_sentence(caught.value)


def test_settings_of_a_tokenizer_that_are_none(small: Path) -> None:
    (small / "vocab.txt").write_text("[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\n")
    (small / "tokenizer_config.json").write_bytes(b"[" * 100_000)
    assert not hasattr(pull_from_hub(small), "do_lower_case")


def test_a_vocabulary_of_two_gigabytes(small: Path) -> None:
    with (small / "vocab.txt").open("wb") as file:
        file.truncate(2**31)
    with pytest.raises(VocabularyError, match="no BERT vocabulary is larger"):
        pull_from_hub(small, component="preprocessor")


@pytest.mark.parametrize("keep", [0, 10, 500])
def test_truncated_variables(exported: Path, keep: int) -> None:
    data = exported / "variables" / "variables.data-00000-of-00001"
    data.write_bytes(data.read_bytes()[:keep])
    with pytest.raises(CheckpointError, match="download it again") as caught:
        pull_from_hub(exported)
    assert one_sentence(caught.value)


def test_what_is_not_there(exported: Path, tmp_path: Path) -> None:
    shutil.rmtree(exported / "variables")
    with pytest.raises(FileNotFoundError, match=r"variables\.index is missing"):
        pull_from_hub(exported)
    (tmp_path / "empty").mkdir()
    with pytest.raises(CheckpointError, match="there is no model of a known form"):
        pull_from_hub(tmp_path / "empty")


def test_a_tf1_module_has_no_object_graph(exported: Path) -> None:
    edited(exported, lambda message: message.meta_graphs[0].ClearField("object_graph_def"))
    with pytest.raises(CheckpointError, match="no TF2 SavedModel"):
        pull_from_hub(exported)


def test_files_of_rk_transformers_are_for_a_board(shared: Path) -> None:
    directory = shared / "data" / "rknn" / "rk_transformers_random_bert"
    with pytest.raises(ArtifactError, match=r"no ONNX file of ours, without which it runs on a board only"):
        pull_from_hub(directory)
    with pytest.raises(CheckpointError, match="no weights that Keras can load"):
        pull_from_hub(directory, component="encoder")


def test_an_artifact_goes_to_the_runtime(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("config.json", "manifest.json", "model.rknn"):
        (tmp_path / name).write_text("{}")
    monkeypatch.setattr("tfbert_npu.hub.pull.load_npu", lambda directory, file: (file, Path(directory)))
    assert pull_from_hub(tmp_path) == (None, tmp_path)
    assert pull_from_hub(tmp_path, file="model.rknn") == ("model.rknn", tmp_path)
    with pytest.raises(CheckpointError, match=r"no weights that Keras can load; run it with load_npu"):
        pull_from_hub(tmp_path, component="encoder")


def test_unknown_arguments(small: Path) -> None:
    with pytest.raises(
        ValueError, match=r"component must be one of \('auto', 'encoder', 'preprocessor', 'model'\)"
    ):
        pull_from_hub(small, component="decoder")


# -- fuzzing our own readers


def _try(directory: Path) -> None:
    try:
        model = read_saved_model(directory)
        model.refuse_dangerous_ops()
        if tfhub.kind_of(model) == "encoder":
            tfhub.read_encoder(model)
        elif tfhub.kind_of(model) == "preprocessor":
            tfhub.read_preprocessor(model)
    except (TfbertNpuError, FileNotFoundError) as error:
        assert one_sentence(error)  # noqa: PT017 - no error at all is as good


@pytest.fixture(scope="module")
def victim(tmp_path_factory: pytest.TempPathFactory, shared: Path) -> Path:
    """The reference encoder, small enough to be damaged a hundred times."""
    directory = tmp_path_factory.mktemp("victim") / "encoder"
    shutil.copytree(shared / "reference" / "encoder", directory)
    return directory


DAMAGE = st.lists(st.tuples(st.floats(0, 1), st.binary(min_size=1, max_size=6)), min_size=1, max_size=6)
FUZZ = settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))


@FUZZ
@given(damage=DAMAGE, cut=st.none() | st.floats(0, 1))
@pytest.mark.parametrize("name", ["saved_model.pb", "variables/variables.index"])
def test_random_damage_gives_one_kind_of_error(victim: Path, name: str, damage, cut) -> None:
    path = victim / name
    pristine = path.read_bytes()
    content = bytearray(pristine)
    for place, value in damage:
        at = int(place * (len(content) - 1))
        content[at : at + len(value)] = value
    path.write_bytes(content if cut is None else content[: int(cut * len(content))])
    try:
        _try(victim)
    finally:
        path.write_bytes(pristine)


@FUZZ
@given(data=st.data())
def test_random_edits_of_the_object_graph_give_one_kind_of_error(victim: Path, data) -> None:
    path = victim / "saved_model.pb"
    pristine = path.read_bytes()

    def edit(message):
        nodes = message.meta_graphs[0].object_graph_def.nodes
        for _ in range(data.draw(st.integers(1, 5))):
            node = nodes[data.draw(st.integers(0, len(nodes) - 1))]
            for child in node.children:
                if data.draw(st.booleans()):
                    child.node_id = data.draw(st.integers(-3, len(nodes) + 3))
            if node.WhichOneof("kind") == "variable":
                node.variable.name = data.draw(
                    st.sampled_from(
                        ["", "x", "transformer/layer_7/output/kernel", "word_embeddings/embeddings"]
                    )
                )
            if node.WhichOneof("kind") == "asset":
                node.asset.asset_file_def_index = data.draw(st.integers(-2, 5))

    try:
        edited(victim, edit)
        _try(victim)
    finally:
        path.write_bytes(pristine)
