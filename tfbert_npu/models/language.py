"""Heads that predict words: masked, masked with next sentence (pre-training), and left to right."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras

from tfbert_npu.heads import CAUSAL_LM, MASKED_LM, PRETRAINING
from tfbert_npu.inputs import MLM_POSITIONS
from tfbert_npu.models.head import BertHead, cross_entropy
from tfbert_npu.models.mlm_head import gather_positions


class _LanguageHead(BertHead):
    def _word_logits(self, outputs: Mapping[str, Any], inputs: Mapping[str, Any]) -> Any:
        states = outputs["sequence_output"]
        if MLM_POSITIONS in inputs:
            states = gather_positions(states, inputs[MLM_POSITIONS])
        return self.mlm_head(states, self.encoder.embeddings.word_embeddings.embeddings)

    def _encode(self, inputs: Mapping[str, Any], training: bool | None) -> dict[str, Any]:
        kept = {name: tensor for name, tensor in inputs.items() if name != MLM_POSITIONS}
        return self.encoder(kept, training=training)


@keras.saving.register_keras_serializable(package="tfbert_npu")
class BertForMaskedLM(_LanguageHead):
    """Masked language model (Devlin et al. 2018, task 1); transformers' `BertForMaskedLM`.

    Call with the encoder's inputs [B, S]; gives logits [B, S, vocab_size]. With `masked_lm_positions`
    [B, P] as a fourth input it gives [B, P, vocab_size], which saves most of the work in training. Labels
    are word ids of the same shape, -100 where there is none.

    Example:
        >>> import numpy as np
        >>> from tfbert_npu import BertConfig, BertForMaskedLM
        >>> sizes = dict(hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8)
        >>> model = BertForMaskedLM(BertConfig(vocab_size=30, **sizes))
        >>> ids = np.array([[2, 7, 8, 3]], "int32")
        >>> inputs = {"input_word_ids": ids, "input_mask": ids * 0 + 1, "input_type_ids": ids * 0}
        >>> tuple(model(inputs).shape)
        (1, 4, 30)
    """

    spec = MASKED_LM

    def call(self, inputs: Mapping[str, Any], training: bool | None = None) -> Any:
        """Score the vocabulary at every position, or at `masked_lm_positions`."""
        return self._word_logits(self._encode(inputs, training), inputs)

    def default_loss(self) -> keras.losses.Loss:
        """Mean cross-entropy over the labeled positions."""
        return cross_entropy()


@keras.saving.register_keras_serializable(package="tfbert_npu")
class BertForPreTraining(_LanguageHead):
    """Masked language model and next sentence prediction (Devlin et al. 2018, section 3.1).

    Call as `BertForMaskedLM`; gives `mlm_logits` [B, S or P, vocab_size] and `nsp_logits` [B, 2], where
    class 0 says that the second text follows the first. Labels are a dict with the same two keys.

    Example:
        >>> import numpy as np
        >>> from tfbert_npu import BertConfig, BertForPreTraining
        >>> sizes = dict(hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8)
        >>> model = BertForPreTraining(BertConfig(vocab_size=30, **sizes))
        >>> ids = np.array([[2, 7, 8, 3]], "int32")
        >>> inputs = {"input_word_ids": ids, "input_mask": ids * 0 + 1, "input_type_ids": ids * 0}
        >>> {name: tuple(logits.shape) for name, logits in model(inputs).items()}
        {'mlm_logits': (1, 4, 30), 'nsp_logits': (1, 2)}
    """

    spec = PRETRAINING

    def call(self, inputs: Mapping[str, Any], training: bool | None = None) -> dict[str, Any]:
        """Score the vocabulary, and whether the second text follows the first."""
        outputs = self._encode(inputs, training)
        return {
            "mlm_logits": self._word_logits(outputs, inputs),
            "nsp_logits": self.seq_relationship(outputs["pooled_output"]),
        }

    def default_loss(self) -> dict[str, keras.losses.Loss]:
        """The sum of both cross-entropies."""
        return {"mlm_logits": cross_entropy(), "nsp_logits": cross_entropy()}


@keras.saving.register_keras_serializable(package="tfbert_npu")
class NextTokenCrossEntropy(keras.losses.Loss):
    """Cross-entropy of each token given those before it: labels [B, S] are the input ids, not shifted."""

    def call(self, y_true: Any, y_pred: Any) -> Any:
        """Losses [B, S - 1]; labels of -100 are left out of the mean."""
        return keras.losses.sparse_categorical_crossentropy(
            y_true[:, 1:], y_pred[:, :-1], from_logits=True, ignore_class=-100
        )


@keras.saving.register_keras_serializable(package="tfbert_npu")
class BertLMHeadModel(_LanguageHead):
    """Left-to-right language model: each token sees itself and those before it.

    Call with the encoder's inputs [B, S]; gives logits [B, S, vocab_size] whose row `t` predicts token
    `t + 1`. Labels are the word ids themselves, -100 at padding; the loss shifts them. transformers'
    `BertLMHeadModel` with `is_decoder=True`.

    Example:
        >>> import numpy as np
        >>> from tfbert_npu import BertConfig, BertLMHeadModel
        >>> sizes = dict(hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8)
        >>> model = BertLMHeadModel(BertConfig(vocab_size=30, **sizes))
        >>> ids = np.array([[2, 7, 8, 3]], "int32")
        >>> inputs = {"input_word_ids": ids, "input_mask": ids * 0 + 1, "input_type_ids": ids * 0}
        >>> tuple(model(inputs).shape)
        (1, 4, 30)
    """

    spec = CAUSAL_LM

    def call(self, inputs: Mapping[str, Any], training: bool | None = None) -> Any:
        """Score the next word at every position."""
        return self._word_logits(self._encode(inputs, training), inputs)

    def default_loss(self) -> keras.losses.Loss:
        """Mean cross-entropy of the next word."""
        return NextTokenCrossEntropy()
