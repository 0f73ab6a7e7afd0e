"""Text to BERT's inputs: a Keras layer for graphs, and a tokenizer that needs no TensorFlow.

Names load on first use, so that importing `BertTokenizer` imports no TensorFlow.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tfbert_npu._lazy import lazy_names

if TYPE_CHECKING:  # the face of the names below, for type checkers and editors
    from tfbert_npu.preprocess.layer import BertPreprocessor as BertPreprocessor
    from tfbert_npu.preprocess.masking import TokenMasker as TokenMasker
    from tfbert_npu.preprocess.next_sentence import next_sentence_pairs as next_sentence_pairs
    from tfbert_npu.preprocess.offsets import byte_offsets_to_characters as byte_offsets_to_characters
    from tfbert_npu.preprocess.options import TextOptions as TextOptions
    from tfbert_npu.preprocess.tokenizer import BertTokenizer as BertTokenizer
    from tfbert_npu.preprocess.vocabulary import Vocabulary as Vocabulary

_HOME = {
    "BertPreprocessor": ".layer",
    "BertTokenizer": ".tokenizer",
    "TextOptions": ".options",
    "TokenMasker": ".masking",
    "Vocabulary": ".vocabulary",
    "byte_offsets_to_characters": ".offsets",
    "next_sentence_pairs": ".next_sentence",
}

__all__ = sorted(_HOME)

__getattr__, __dir__ = lazy_names(__name__, _HOME)
