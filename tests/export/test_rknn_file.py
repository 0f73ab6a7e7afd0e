"""The `.rknn` reader on real files of two toolkit versions, and on damaged ones."""

from __future__ import annotations

import json
import struct

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tfbert_npu.artifact.manifest import TensorSpec
from tfbert_npu.artifact.rknn_file import RknnFile, read_rknn
from tfbert_npu.errors import ArtifactError


@pytest.fixture(scope="module")
def bert_file(shared):
    return shared / "data/rknn/rk_transformers_random_bert/rknn/model_b1_s32_o3.rknn"


@pytest.fixture(scope="module")
def small_file(shared):
    return shared / "data/rknn/community/npu_playground_model.rknn"


@pytest.fixture(scope="module")
def bert_data(bert_file):
    return bert_file.read_bytes()


def test_reads_a_file_of_rk_transformers(bert_file):
    found = read_rknn(bert_file)
    assert found.platforms == ("rk3588",)
    assert found.toolkit_version == "2.3.2"
    assert found.format_version == 6
    assert found.size == bert_file.stat().st_size
    assert found.inputs == tuple(
        TensorSpec(name, "int64", (1, 32)) for name in ("input_ids", "attention_mask", "token_type_ids")
    )
    assert found.outputs == (TensorSpec("last_hidden_state", "float16", (1, 32, 32)),)
    assert found.input_shapes == (((1, 32), (1, 32), (1, 32)),)
    assert found.custom_string is None


def test_reads_what_a_file_of_another_format_says(small_file):
    found = read_rknn(small_file)
    assert found.platforms == ("rv1103",)
    assert found.format_version == 0x1004
    assert [(spec.dtype, spec.shape) for spec in found.inputs + found.outputs] == [
        ("int8", (1, 2)),
        ("int8", (1, 1)),
    ]


def test_a_missing_file_is_missing(tmp_path):
    with pytest.raises(FileNotFoundError):
        read_rknn(tmp_path / "none.rknn")


@pytest.mark.parametrize("content", [b"", b"RKNN", b"RKNN" + bytes(100), b"\x89PNG" + bytes(100)])
def test_what_is_no_rknn_file_is_refused(tmp_path, content):
    path = tmp_path / "model.rknn"
    path.write_bytes(content)
    with pytest.raises(ArtifactError, match=r"model\.rknn is .*export or copy it again"):
        read_rknn(path)


@pytest.mark.parametrize("share", [0.001, 0.3, 0.9, 0.9999])
def test_a_truncated_file_is_refused(tmp_path, bert_file, share):
    data = bert_file.read_bytes()
    path = tmp_path / "model.rknn"
    path.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(ArtifactError, match="export or copy it again"):
        read_rknn(path)


def read_or_refuse(path) -> RknnFile | str:
    """What the file says, or why it is refused; any other error is the test's."""
    try:
        return read_rknn(path)
    except ArtifactError as error:
        return str(error)


def rebuilt(data: bytes, change) -> bytes:
    """The file with another JSON document at its end."""
    end = 64 + struct.unpack_from("<Q", data, 16)[0]
    document = json.loads(data[end + 8 :])
    raw = json.dumps(change(document)).encode()
    return data[:end] + struct.pack("<Q", len(raw)) + raw


def without(key):
    return lambda document: {name: value for name, value in document.items() if name != key}


@pytest.mark.parametrize(
    "change",
    [
        without("norm_tensor"),
        without("graph"),
        without("target_platform"),
        without("version"),
        lambda document: {**document, "version": "newest"},
        lambda document: {**document, "target_platform": []},
        lambda document: {**document, "graph": []},
        lambda document: {**document, "norm_tensor": [1]},
        lambda document: [document],
        lambda document: 1e999,
        lambda document: {**document, "graph": [{"left": "up", "left_tensor_id": 0, "right_tensor_id": 0}]},
        lambda document: {
            **document,
            "norm_tensor": [{**tensor, "size": [-1]} for tensor in document["norm_tensor"]],
        },
        lambda document: {
            **document,
            "norm_tensor": [{**tensor, "url": "swapped"} for tensor in document["norm_tensor"]],
        },
    ],
)
def test_a_description_of_another_form_is_refused(tmp_path, bert_file, change):
    path = tmp_path / "model.rknn"
    path.write_bytes(rebuilt(bert_file.read_bytes(), change))
    with pytest.raises(ArtifactError, match="damaged"):
        read_rknn(path)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_no_damage_makes_anything_but_a_reading_or_an_error(tmp_path, small_file, bert_data, data):
    original = data.draw(st.sampled_from([bert_data, small_file.read_bytes()]))
    damaged = bytearray(original)
    for _ in range(data.draw(st.integers(1, 8))):
        place = data.draw(st.integers(0, len(damaged) - 1))
        damaged[place] = data.draw(st.integers(0, 255))
    if data.draw(st.booleans()):
        cut = data.draw(st.integers(0, len(damaged)))
        del damaged[cut:]
    path = tmp_path / "model.rknn"
    path.write_bytes(damaged)
    found = read_or_refuse(path)
    if isinstance(found, RknnFile):
        assert found.inputs
        assert found.outputs
    else:
        assert "\n" not in found


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_no_offset_leads_outside(tmp_path, bert_data, data):
    """Whole 32-bit words of the tables replaced: every offset and count is one."""
    damaged = bytearray(bert_data)
    for _ in range(data.draw(st.integers(1, 3))):
        place = 64 + 4 * data.draw(st.integers(0, 300))
        word = data.draw(st.one_of(st.integers(0, 2**32 - 1), st.sampled_from([0, 4, 2**31, 2**32 - 1])))
        struct.pack_into("<I", damaged, place, word)
    path = tmp_path / "model.rknn"
    path.write_bytes(damaged)
    found = read_or_refuse(path)
    assert isinstance(found, RknnFile) or "damaged" in found
