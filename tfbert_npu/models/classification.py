"""Heads over the pooled output: one decision per text, per pair or per set of choices."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras
from keras import ops

from tfbert_npu.config import ProblemType
from tfbert_npu.heads import MULTIPLE_CHOICE, NEXT_SENTENCE, SEQUENCE_CLASSIFICATION
from tfbert_npu.models.head import BertHead, cross_entropy, flat


class _PooledHead(BertHead):
    def _classify(self, pooled: Any, training: bool | None) -> Any:
        if self.config.model_type == "distilbert":
            pooled = ops.relu(self.pre_classifier(pooled))
        return self.classifier(self._drop(pooled, training))


@keras.saving.register_keras_serializable(package="tfbert_npu")
class BertForSequenceClassification(_PooledHead):
    """A class, several classes or a number for a text or a pair of texts.

    Call with the encoder's inputs [B, S]; gives logits [B, num_labels]. Labels by `problem_type`:
    `"single_label_classification"`, int [B]; `"multi_label_classification"`, 0 or 1 [B, num_labels];
    `"regression"`, float [B] or [B, num_labels].

    Example:
        >>> import numpy as np
        >>> from tfbert_npu import BertConfig, BertForSequenceClassification
        >>> sizes = dict(hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8)
        >>> model = BertForSequenceClassification(BertConfig(vocab_size=30, **sizes), labels=["bad", "good"])
        >>> ids = np.array([[2, 7, 8, 3]], "int32")
        >>> inputs = {"input_word_ids": ids, "input_mask": ids * 0 + 1, "input_type_ids": ids * 0}
        >>> tuple(model(inputs).shape)
        (1, 2)
    """

    spec = SEQUENCE_CLASSIFICATION

    def call(self, inputs: Mapping[str, Any], training: bool | None = None) -> Any:
        """Score the labels."""
        return self._classify(self.encoder(inputs, training=training)["pooled_output"], training)

    @property
    def problem_type(self) -> ProblemType:
        """The configuration's, else regression for one label and single label for more."""
        if self.config.problem_type is not None:
            return self.config.problem_type
        return "regression" if self.config.num_labels == 1 else "single_label_classification"

    @property
    def num_classes(self) -> int | None:
        """Number of labels, where a text has one of them."""
        return self.config.num_labels if self.problem_type == "single_label_classification" else None

    def default_loss(self) -> keras.losses.Loss:
        """Cross-entropy, binary cross-entropy per label, or mean squared error."""
        if self.problem_type == "regression":
            return keras.losses.MeanSquaredError()
        if self.problem_type == "multi_label_classification":
            return keras.losses.BinaryCrossentropy(from_logits=True)
        return cross_entropy()


@keras.saving.register_keras_serializable(package="tfbert_npu")
class BertForMultipleChoice(_PooledHead):
    """The best of several choices, each of them a text or a pair (SWAG, COPA).

    Call with inputs [B, choices, S]; gives logits [B, choices]. Labels are the index of the right one,
    int [B].

    Example:
        >>> import numpy as np
        >>> from tfbert_npu import BertConfig, BertForMultipleChoice
        >>> sizes = dict(hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8)
        >>> model = BertForMultipleChoice(BertConfig(vocab_size=30, **sizes))
        >>> ids = np.array([[[2, 7, 8, 3], [2, 7, 9, 3]]], "int32")
        >>> inputs = {"input_word_ids": ids, "input_mask": ids * 0 + 1, "input_type_ids": ids * 0}
        >>> tuple(model(inputs).shape)
        (1, 2)
    """

    spec = MULTIPLE_CHOICE

    def _checked(self, inputs: Any) -> dict[str, Any]:
        if isinstance(inputs, Mapping):
            for name, tensor in inputs.items():
                if len(getattr(tensor, "shape", ())) != 3:
                    raise ValueError(
                        f"{name} must have rank 3, [batch, choices, length], "
                        f"got shape {tuple(getattr(tensor, 'shape', ()))}"
                    )
            return dict(inputs)
        return super()._checked(inputs)

    def call(self, inputs: Mapping[str, Any], training: bool | None = None) -> Any:
        """Score each choice."""
        choices = ops.shape(inputs["input_word_ids"])[1]
        outputs = self.encoder({name: flat(tensor) for name, tensor in inputs.items()}, training=training)
        logits = self._classify(outputs["pooled_output"], training)
        return ops.reshape(logits, (-1, choices))

    def default_loss(self) -> keras.losses.Loss:
        """Cross-entropy over the choices."""
        return cross_entropy()


@keras.saving.register_keras_serializable(package="tfbert_npu")
class BertForNextSentencePrediction(BertHead):
    """Whether the second text follows the first (Devlin et al. 2018, task 2).

    Call with the encoder's inputs [B, S]; gives logits [B, 2]. Labels, int [B]: 0 it follows, 1 it is a
    random text.

    Example:
        >>> import numpy as np
        >>> from tfbert_npu import BertConfig, BertForNextSentencePrediction
        >>> sizes = dict(hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8)
        >>> model = BertForNextSentencePrediction(BertConfig(vocab_size=30, **sizes))
        >>> ids = np.array([[2, 7, 8, 3]], "int32")
        >>> inputs = {"input_word_ids": ids, "input_mask": ids * 0 + 1, "input_type_ids": ids * 0}
        >>> tuple(model(inputs).shape)
        (1, 2)
    """

    spec = NEXT_SENTENCE

    def call(self, inputs: Mapping[str, Any], training: bool | None = None) -> Any:
        """Score both answers."""
        return self.seq_relationship(self.encoder(inputs, training=training)["pooled_output"])

    def default_loss(self) -> keras.losses.Loss:
        """Cross-entropy."""
        return cross_entropy()
