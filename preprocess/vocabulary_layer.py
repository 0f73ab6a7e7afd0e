"""What the text layers share: a configuration with its vocabulary, and the graph they compile to."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import keras

from tfbert_npu.preprocess.graph import PreprocessingGraph
from tfbert_npu.preprocess.options import TextOptions
from tfbert_npu.preprocess.vocabulary import Vocabulary


@lru_cache(maxsize=4)
def _shared_graph(vocabulary: Vocabulary, options: TextOptions) -> PreprocessingGraph:
    return PreprocessingGraph(vocabulary, options)


class VocabularyLayer(keras.layers.Layer):
    """A layer without weights whose configuration holds its whole vocabulary.

    So `.keras` files need no other file, and `from_config` gives an equal layer.

    Args:
        vocabulary: The word pieces.
        options: Dialect and switches.
    """

    def __init__(self, vocabulary: Vocabulary, options: TextOptions | None = None, **kwargs: Any):
        kwargs.pop("trainable", None)
        super().__init__(trainable=False, **kwargs)
        self.vocabulary = vocabulary
        self.options = options or TextOptions()
        # A plain object to Keras, which would otherwise save every compiled function; what a SavedModel
        # must track are the graph's resources.
        self._graph = _shared_graph(vocabulary, self.options)
        self._resources = self._graph.tokenizer.resources
        self.built = True

    def get_special_tokens_dict(self) -> dict[str, int]:
        """Ids of the special tokens, under the keys of the TF-Hub contract.

        Returns:
            `start_of_sequence_id`, `end_of_segment_id`, `padding_id`, `vocab_size`, and `mask_id` where the
            vocabulary has `[MASK]`.
        """
        vocabulary = self.vocabulary
        ids = {
            "start_of_sequence_id": vocabulary.cls_id,
            "end_of_segment_id": vocabulary.sep_id,
            "padding_id": vocabulary.pad_id,
            "vocab_size": len(vocabulary),
        }
        return {**ids, "mask_id": vocabulary.mask_id} if "[MASK]" in vocabulary.ids else ids

    def get_config(self) -> dict[str, Any]:
        """Configuration, vocabulary included."""
        return {
            **super().get_config(),
            "vocabulary": self.vocabulary.to_text(),
            "dialect": self.options.dialect,
            "lower_case": self.options.lower_case,
            "strip_accents": self.options.strip_accents,
            "tokenize_chinese_chars": self.options.tokenize_chinese_chars,
            "allow_special_tokens": sorted(self.options.allow_special_tokens),
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> VocabularyLayer:
        """A layer equal to the one whose `get_config` this is."""
        config = dict(config)
        options = TextOptions(
            config.pop("dialect"),
            config.pop("lower_case"),
            config.pop("strip_accents"),
            config.pop("tokenize_chinese_chars"),
            frozenset(config.pop("allow_special_tokens")),
        )
        return cls(Vocabulary(tuple(config.pop("vocabulary").split("\n")[:-1])), options, **config)
