"""How many of our modules a model passes through on its way to the compiler."""

from __future__ import annotations

import sys
import threading
from pathlib import Path

import pytest

from tests.export.models import bert
from tfbert_npu.export.rknn import export_rknn
from tfbert_npu.rknn.toolchain.environment import Toolchain
from tfbert_npu.rknn.worker import VendorSession

MOST_MODULES = 24
"""What holds today, our import hook among them while Keras is not loaded; it is to fall to 14."""


class ReachedCompilerError(Exception):
    """Ends the trip where the vendor's build would begin."""


def modules_of(call):
    """Names of our modules whose functions ran in this thread, in the order of their first call."""
    seen = {}

    def note(frame, event, argument):
        if event == "call" and frame.f_code.co_name != "<module>":
            name = frame.f_globals.get("__name__", "")
            if name.startswith("tfbert_npu."):
                seen.setdefault(name)

    assert threading.current_thread() is threading.main_thread()
    sys.setprofile(note)
    try:
        call()
    finally:
        sys.setprofile(None)
    return list(seen)


def test_the_trip_to_the_compiler(tmp_path, monkeypatch):
    _, _, model = bert("BertForSequenceClassification", num_labels=3)
    model.save_pretrained(tmp_path / "model")
    toolchain = Toolchain(Path(sys.executable), "2.5.0", None, "3.11", "x86_64")
    monkeypatch.setattr("tfbert_npu.export.rknn.find_toolchain", lambda *_: toolchain)

    def start(*_, **__):
        raise ReachedCompilerError

    monkeypatch.setattr(VendorSession, "__init__", start)

    def trip():
        with pytest.raises(ReachedCompilerError):
            export_rknn(tmp_path / "model", tmp_path / "out", shapes=((1, 16),))

    trip()  # imports run once
    passed = modules_of(trip)
    assert "tfbert_npu.onnx.model" in passed
    assert len(passed) <= MOST_MODULES, " ".join(passed)
