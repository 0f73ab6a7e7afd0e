"""Keras 3 and TF-Hub-compatible BERT whose encoder trains in TensorFlow and runs on a Rockchip NPU.

Names load on first use: importing this package imports neither TensorFlow nor any vendor library.
"""

from __future__ import annotations

import importlib
import sys
from typing import Any

from tfbert_npu.errors import require
from tfbert_npu.registration import KERAS_MODULES, register_layers, register_with_keras

__version__ = "0.1.0"

_HOME = {
    "BertConfig": "tfbert_npu.config",
    "BertEncoder": "tfbert_npu.encoder",
    "BertForMaskedLM": "tfbert_npu.heads",
    "BertForMultipleChoice": "tfbert_npu.heads",
    "BertForNextSentencePrediction": "tfbert_npu.heads",
    "BertForPreTraining": "tfbert_npu.heads",
    "BertForQuestionAnswering": "tfbert_npu.heads",
    "BertForSequenceClassification": "tfbert_npu.heads",
    "BertForTokenClassification": "tfbert_npu.heads",
    "BertLMHeadModel": "tfbert_npu.heads",
    "BertPreprocessor": "tfbert_npu.preprocess.layer",
    "BertTokenizer": "tfbert_npu.preprocess",
    "export_onnx": "tfbert_npu.export.onnx_file",
    "export_rknn": "tfbert_npu.export.rknn",
    "export_saved_model": "tfbert_npu.export.saved_model",
    "pull_from_hub": "tfbert_npu.hub.pull",
    "push_to_hub": "tfbert_npu.hub.push",
}

__all__ = ["__version__", *_HOME]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if _HOME[name] in KERAS_MODULES:
        require("keras", "tf")
    value = getattr(importlib.import_module(_HOME[name]), name)
    if "keras" in sys.modules:
        register_layers()
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOME])


register_with_keras()
