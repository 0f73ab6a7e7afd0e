"""Text to BERT's inputs: a Keras layer for graphs, and a tokenizer that needs no TensorFlow.

Names load on first use, so that importing `BertTokenizer` imports no TensorFlow.
"""

from __future__ import annotations

from tfbert_npu._lazy import lazy_names

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
