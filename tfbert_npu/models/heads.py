"""Task heads: an encoder and a few weights on top of it, as a `keras.Model` that fits, saves and loads."""

from __future__ import annotations

from tfbert_npu.heads import HeadSpec
from tfbert_npu.models.classification import (
    BertForMultipleChoice,
    BertForNextSentencePrediction,
    BertForSequenceClassification,
)
from tfbert_npu.models.head import BertHead
from tfbert_npu.models.language import BertForMaskedLM, BertForPreTraining, BertLMHeadModel
from tfbert_npu.models.tokens import BertForQuestionAnswering, BertForTokenClassification

__all__ = [
    "BertForMaskedLM",
    "BertForMultipleChoice",
    "BertForNextSentencePrediction",
    "BertForPreTraining",
    "BertForQuestionAnswering",
    "BertForSequenceClassification",
    "BertForTokenClassification",
    "BertLMHeadModel",
]


def class_of(head: HeadSpec) -> type[BertHead]:
    """The Keras class of a head, one of ours or one that has been imported; see `BertHead.class_of`."""
    return BertHead.class_of(head)
