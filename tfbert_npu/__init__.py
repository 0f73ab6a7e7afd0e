"""Keras 3 and TF-Hub-compatible BERT whose encoder trains in TensorFlow and runs on a Rockchip NPU.

Names load on first use: importing this package imports neither TensorFlow nor any vendor library.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from tfbert_npu._lazy import lazy_names
from tfbert_npu._version import __version__
from tfbert_npu.errors import require
from tfbert_npu.registration import KERAS_MODULES, register_layers, register_with_keras

if TYPE_CHECKING:  # the face of the names below, for type checkers and editors
    from tfbert_npu.config import BertConfig as BertConfig
    from tfbert_npu.export.onnx_file import export_onnx as export_onnx
    from tfbert_npu.export.rknn import export_rknn as export_rknn
    from tfbert_npu.export.saved_model import export_saved_model as export_saved_model
    from tfbert_npu.hub.pull import pull_from_hub as pull_from_hub
    from tfbert_npu.hub.push import push_to_hub as push_to_hub
    from tfbert_npu.models.encoder import BertEncoder as BertEncoder
    from tfbert_npu.models.heads import BertForMaskedLM as BertForMaskedLM
    from tfbert_npu.models.heads import BertForMultipleChoice as BertForMultipleChoice
    from tfbert_npu.models.heads import BertForNextSentencePrediction as BertForNextSentencePrediction
    from tfbert_npu.models.heads import BertForPreTraining as BertForPreTraining
    from tfbert_npu.models.heads import BertForQuestionAnswering as BertForQuestionAnswering
    from tfbert_npu.models.heads import BertForSequenceClassification as BertForSequenceClassification
    from tfbert_npu.models.heads import BertForTokenClassification as BertForTokenClassification
    from tfbert_npu.models.heads import BertLMHeadModel as BertLMHeadModel
    from tfbert_npu.preprocess import BertTokenizer as BertTokenizer
    from tfbert_npu.preprocess import TokenMasker as TokenMasker
    from tfbert_npu.preprocess import Vocabulary as Vocabulary
    from tfbert_npu.preprocess import next_sentence_pairs as next_sentence_pairs
    from tfbert_npu.preprocess.layer import BertPreprocessor as BertPreprocessor
    from tfbert_npu.runtime import load_npu as load_npu
    from tfbert_npu.tasks.sentence_encoder import SentenceEncoder as SentenceEncoder

_HOME = {
    "BertConfig": "tfbert_npu.config",
    "BertEncoder": "tfbert_npu.models.encoder",
    "BertForMaskedLM": "tfbert_npu.models.heads",
    "BertForMultipleChoice": "tfbert_npu.models.heads",
    "BertForNextSentencePrediction": "tfbert_npu.models.heads",
    "BertForPreTraining": "tfbert_npu.models.heads",
    "BertForQuestionAnswering": "tfbert_npu.models.heads",
    "BertForSequenceClassification": "tfbert_npu.models.heads",
    "BertForTokenClassification": "tfbert_npu.models.heads",
    "BertLMHeadModel": "tfbert_npu.models.heads",
    "BertPreprocessor": "tfbert_npu.preprocess.layer",
    "BertTokenizer": "tfbert_npu.preprocess",
    "SentenceEncoder": "tfbert_npu.tasks.sentence_encoder",
    "TokenMasker": "tfbert_npu.preprocess",
    "Vocabulary": "tfbert_npu.preprocess",
    "export_onnx": "tfbert_npu.export.onnx_file",
    "export_rknn": "tfbert_npu.export.rknn",
    "export_saved_model": "tfbert_npu.export.saved_model",
    "load_npu": "tfbert_npu.runtime",
    "next_sentence_pairs": "tfbert_npu.preprocess",
    "pull_from_hub": "tfbert_npu.hub.pull",
    "push_to_hub": "tfbert_npu.hub.push",
}

__all__ = ["__version__", *_HOME]


_load, __dir__ = lazy_names(__name__, _HOME)


def __getattr__(name: str) -> Any:
    if _HOME.get(name) in KERAS_MODULES:
        require("keras", "tf")
    value = _load(name)
    if "keras" in sys.modules:
        register_layers()
    return value


register_with_keras()
