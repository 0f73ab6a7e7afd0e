"""Task heads: an encoder and a few weights on top of it, as a `keras.Model` that fits, saves and loads."""

from tfbert_npu.models.classification import (
    BertForMultipleChoice,
    BertForNextSentencePrediction,
    BertForSequenceClassification,
)
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
