"""Errors carry their cause and their remedy as fields, wherever they pass through."""

from __future__ import annotations

import errno
import pickle
from pathlib import Path

import pytest

from tfbert_npu import BertConfig, pull_from_hub
from tfbert_npu.errors import ArtifactError, CheckpointError, FailedWriteError, TfbertNpuError
from tfbert_npu.runtime.errors import BackendTimeoutError


@pytest.mark.parametrize("kind", [TfbertNpuError, CheckpointError, FailedWriteError, BackendTimeoutError])
def test_the_sentence_is_cause_and_remedy(kind: type[TfbertNpuError]) -> None:
    error = kind("it is full", "empty it")
    assert (str(error), error.cause, error.remedy) == ("it is full; empty it", "it is full", "empty it")
    again = pickle.loads(pickle.dumps(error))
    assert (type(again), str(again), again.cause, again.remedy) == (
        kind,
        str(error),
        "it is full",
        "empty it",
    )
    assert str(kind("it is full")) == "it is full"
    assert kind("it is full").remedy is None


def test_a_place_goes_before_the_cause() -> None:
    error = ArtifactError("it is full", "empty it").within("the bin")
    assert (error.cause, error.remedy) == ("the bin: it is full", "empty it")


def test_the_system_keeps_its_number() -> None:
    assert FailedWriteError("it is full", "empty it", errno.ENOSPC).errno == errno.ENOSPC


def test_a_long_message_keeps_its_remedy() -> None:
    text = str(CheckpointError("x" * 10_000, "download it again"))
    assert len(text) < 2000
    assert text.endswith("; download it again")


def test_a_reader_gives_both(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"module": "keras_hub.src.models.bert"}')
    for load in (
        lambda: BertConfig.from_json(tmp_path / "config.json", source="huggingface"),
        lambda: pull_from_hub(tmp_path),
    ):
        with pytest.raises(CheckpointError) as caught:
            load()
        assert caught.value.remedy
        assert str(caught.value) == f"{caught.value.cause}; {caught.value.remedy}"
