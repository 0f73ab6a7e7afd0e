"""Heads over the token states: a label per token, and the span that answers a question."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras

from tfbert_npu.heads import QUESTION_ANSWERING, TOKEN_CLASSIFICATION
from tfbert_npu.models.head import BertHead, cross_entropy


@keras.saving.register_keras_serializable(package="tfbert_npu")
class BertForTokenClassification(BertHead):
    """A label for every token: named entities, parts of speech.

    Call with the encoder's inputs [B, S]; gives logits [B, S, num_labels]. Labels are int [B, S], -100
    where a token has none (special tokens, later pieces of a word, padding).

    Example:
        >>> import numpy as np
        >>> from tfbert_npu import BertConfig, BertForTokenClassification
        >>> sizes = dict(hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8)
        >>> model = BertForTokenClassification(BertConfig(vocab_size=30, **sizes), labels=["O", "B-PER"])
        >>> ids = np.array([[2, 7, 8, 3]], "int32")
        >>> inputs = {"input_word_ids": ids, "input_mask": ids * 0 + 1, "input_type_ids": ids * 0}
        >>> tuple(model(inputs).shape)
        (1, 4, 2)
    """

    spec = TOKEN_CLASSIFICATION

    def call(self, inputs: Mapping[str, Any], training: bool | None = None) -> Any:
        """Score the labels of every token."""
        states = self.encoder(inputs, training=training)["sequence_output"]
        # transformers takes `dropout`, not `seq_classif_dropout`, in this DistilBERT head alone.
        rate = self.config.hidden_dropout_prob if self.config.model_type == "distilbert" else None
        return self.classifier(self._drop(states, training, rate))

    @property
    def num_classes(self) -> int:
        """Number of labels."""
        return self.config.num_labels

    def default_loss(self) -> keras.losses.Loss:
        """Mean cross-entropy over the labeled tokens."""
        return cross_entropy()


@keras.saving.register_keras_serializable(package="tfbert_npu")
class BertForQuestionAnswering(BertHead):
    """The first and the last token of an answer (Rajpurkar et al. 2016).

    Call with the encoder's inputs [B, S] of question and context; gives `start_logits` and `end_logits`
    [B, S]. Labels are a dict with the same keys, int [B]: token positions, 0 (the [CLS] token) for "no
    answer", -100 for a window to leave out.

    Example:
        >>> import numpy as np
        >>> from tfbert_npu import BertConfig, BertForQuestionAnswering
        >>> sizes = dict(hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8)
        >>> model = BertForQuestionAnswering(BertConfig(vocab_size=30, **sizes))
        >>> ids = np.array([[2, 7, 8, 3]], "int32")
        >>> inputs = {"input_word_ids": ids, "input_mask": ids * 0 + 1, "input_type_ids": ids * 0}
        >>> {name: tuple(logits.shape) for name, logits in model(inputs).items()}
        {'start_logits': (1, 4), 'end_logits': (1, 4)}
    """

    spec = QUESTION_ANSWERING

    def call(self, inputs: Mapping[str, Any], training: bool | None = None) -> dict[str, Any]:
        """Score every token as the answer's first and as its last."""
        states = self.encoder(inputs, training=training)["sequence_output"]
        if self.config.model_type == "distilbert":
            states = self._drop(states, training, self.config.qa_dropout)
        logits = self.qa_outputs(states)
        return {"start_logits": logits[..., 0], "end_logits": logits[..., 1]}

    def default_loss(self) -> dict[str, keras.losses.Loss]:
        """Cross-entropy over the positions, for both ends."""
        return {"start_logits": cross_entropy(), "end_logits": cross_entropy()}

    def default_loss_weights(self) -> dict[str, float]:
        """The mean of both."""
        return {"start_logits": 0.5, "end_logits": 0.5}
