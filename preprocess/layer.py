"""`BertPreprocessor`: texts to BERT's three inputs as a Keras 3 layer."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from tfbert_npu.errors import require
from tfbert_npu.preprocess.options import Dialect, TextOptions, Trimming, one_of, read_options
from tfbert_npu.preprocess.tokenizer import TOKENIZER_FILES
from tfbert_npu.preprocess.vocabulary import Vocabulary
from tfbert_npu.repository import local_directory

tf = require("tensorflow", "tf")
keras = require("keras", "tf")
require("tensorflow_text", "tf")

from tfbert_npu.preprocess.graph import PreprocessingGraph  # noqa: E402

OUTPUTS = ("input_word_ids", "input_mask", "input_type_ids")


@keras.saving.register_keras_serializable("tfbert_npu")
class BertPreprocessor(keras.layers.Layer):
    """Texts to `input_word_ids`, `input_mask` and `input_type_ids`, inside any TensorFlow graph.

    It works eagerly, in `tf.function`, in `tf.data.Dataset.map` and in functional models from
    `keras.Input(shape=(), dtype="string")`; its vocabulary is part of its configuration, so `.keras`
    files and SavedModels need no other file. A process that loads such a SavedModel must import
    tensorflow_text first.

    Args:
        vocabulary: The word pieces.
        options: Dialect and switches.
        seq_length: L, the length of every row unless a call says otherwise.
        trimming: How two segments share the room; see `trimming.trim_pair`.
    """

    def __init__(
        self,
        vocabulary: Vocabulary,
        options: TextOptions | None = None,
        seq_length: int = 128,
        trimming: Trimming = "round_robin",
        **kwargs: Any,
    ):
        super().__init__(trainable=False, **kwargs)
        one_of(trimming, Trimming, "trimming")
        self.vocabulary = vocabulary
        self.options = options or TextOptions()
        self.seq_length = _checked_length(seq_length, 1)
        self.trimming = trimming
        self._graph = PreprocessingGraph(vocabulary, self.options, trimming)
        self.built = True

    @classmethod
    def from_pretrained(
        cls,
        repo_or_dir: str | os.PathLike[str],
        seq_length: int = 128,
        dialect: Dialect = "bert",
        *,
        lower_case: bool | None = None,
        allow_special_tokens: Iterable[str] = (),
        trimming: Trimming = "round_robin",
        name: str | None = None,
        **hub_options: Any,
    ) -> BertPreprocessor:
        """The preprocessor of a model.

        Args:
            repo_or_dir: A directory with vocab.txt or tokenizer.json, or a hub repository.
            seq_length: L, the length of every row.
            dialect: `"bert"` for Hugging Face and Google checkpoints, `"tf_text"` for TF-Hub's.
            lower_case: Overrides what the model's files say.
            allow_special_tokens: Special tokens that a text may contain as such, e.g. `{"[MASK]"}`.
            trimming: How two segments share the room.
            name: Name of the layer.
            **hub_options: `revision`, `token`, `cache_dir`, `local_files_only`; see
                `tfbert_npu.repository.local_directory`.

        Raises:
            OSError: No such directory, repository or vocabulary.
            VocabularyError: The vocabulary cannot serve.
            CheckpointError: A configuration file cannot be read.
        """
        directory = local_directory(repo_or_dir, TOKENIZER_FILES, **hub_options)
        options = read_options(
            directory,
            name=os.fspath(repo_or_dir),
            dialect=dialect,
            lower_case=lower_case,
            allow_special_tokens=allow_special_tokens,
        )
        return cls(Vocabulary.from_directory(directory), options, seq_length, trimming, name=name)

    def __call__(self, inputs: Any, seq_length: int | None = None, **kwargs: Any) -> dict[str, Any]:
        """Check the texts, make them tensors as Keras wants them, and `call`."""
        return super().__call__(_as_segments(inputs), seq_length=seq_length, **kwargs)

    def call(self, inputs: Any, seq_length: int | None = None) -> dict[str, Any]:
        """Encode texts, or pairs of texts.

        Args:
            inputs: A string tensor [B], or a list of one or two of them, the segments.
            seq_length: L, if not the layer's own.

        Returns:
            `input_word_ids`, `input_mask` and `input_type_ids`, int32 [B, L].

        Raises:
            ValueError: Not texts, more than two segments, or `seq_length` has no room for the special
                tokens.
        """
        segments = inputs if isinstance(inputs, (list, tuple)) else [inputs]
        length = _checked_length(self.seq_length if seq_length is None else seq_length, len(segments))
        return self._graph.encode(segments, length)

    def compute_output_spec(self, inputs: Any, seq_length: int | None = None) -> dict[str, Any]:
        """Symbolic outputs, int32 [B, L]."""
        segments = inputs if isinstance(inputs, (list, tuple)) else [inputs]
        length = _checked_length(self.seq_length if seq_length is None else seq_length, len(segments))
        return {
            name: keras.KerasTensor((segments[0].shape[0], length), dtype="int32", name=name)
            for name in OUTPUTS
        }

    def get_config(self) -> dict[str, Any]:
        """Configuration with the whole vocabulary, so that the layer needs no other file."""
        return {
            **super().get_config(),
            "vocabulary": self.vocabulary.to_text(),
            "dialect": self.options.dialect,
            "lower_case": self.options.lower_case,
            "strip_accents": self.options.strip_accents,
            "tokenize_chinese_chars": self.options.tokenize_chinese_chars,
            "allow_special_tokens": sorted(self.options.allow_special_tokens),
            "seq_length": self.seq_length,
            "trimming": self.trimming,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> BertPreprocessor:
        """A layer equal to the one whose `get_config` this is."""
        config = dict(config)
        options = TextOptions(
            config.pop("dialect"),
            config.pop("lower_case"),
            config.pop("strip_accents"),
            config.pop("tokenize_chinese_chars"),
            frozenset(config.pop("allow_special_tokens")),
        )
        vocabulary = Vocabulary(tuple(config.pop("vocabulary").split("\n")[:-1]))
        config.pop("trainable", None)
        return cls(vocabulary, options, **config)


def _checked_length(seq_length: Any, segments: int) -> int:
    if isinstance(seq_length, bool) or not isinstance(seq_length, (int, np.integer)):
        raise ValueError(f"seq_length must be an integer, not {seq_length!r}")
    if seq_length < segments + 1:
        raise ValueError(
            f"seq_length={seq_length} has no room for the {segments + 1} special tokens; "
            f"use at least {segments + 1}"
        )
    return int(seq_length)


def _as_segments(inputs: Any) -> Any:
    """One tensor or a list of one or two, checked; tensors of Keras and of graphs pass through."""
    if not isinstance(inputs, (list, tuple)) or not inputs or not _holds_texts(inputs[0]):
        return _as_texts(inputs)
    if len(inputs) > 2:
        raise ValueError(
            f"BERT takes one or two segments, not {len(inputs)}; pass [first] or [first, second]"
        )
    segments = [_as_texts(segment) for segment in inputs]
    sizes = {segment.shape[0] for segment in segments} - {None}
    if len(sizes) > 1:
        first, second = (segment.shape[0] for segment in segments)
        raise ValueError(f"the segments have {first} and {second} texts; give one second text per first")
    return segments


def _holds_texts(item: Any) -> bool:
    return isinstance(item, (list, tuple, np.ndarray, keras.KerasTensor)) or tf.is_tensor(item)


def _as_texts(texts: Any) -> Any:
    if isinstance(texts, keras.KerasTensor):
        dtype, rank = keras.backend.standardize_dtype(texts.dtype), len(texts.shape)
    else:
        if not tf.is_tensor(texts):
            texts = _text_tensor(texts)
        dtype, rank = texts.dtype.name, texts.shape.rank
    if dtype != "string":
        raise ValueError(f"expected texts, a string tensor [batch], but got dtype {dtype}")
    if rank not in (None, 1):
        raise ValueError(f"expected texts of shape [batch], but got rank {rank}; wrap one text in a list")
    return texts


def _text_tensor(texts: Any) -> Any:
    if isinstance(texts, np.ndarray):
        texts = texts.tolist()
    if isinstance(texts, (str, bytes)):
        raise ValueError("expected a batch of texts, not one text; wrap it in a list")
    if not isinstance(texts, Sequence):
        raise ValueError(f"expected a string tensor or a list of texts, not {type(texts).__name__}")
    for index, text in enumerate(texts):
        if not isinstance(text, (str, bytes)):
            raise ValueError(f"text {index} is not a str or bytes but {type(text).__name__}")
    # A lone surrogate stands for bytes that are not UTF-8.
    encoded = [text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text for text in texts]
    return tf.constant(encoded, tf.string, shape=[len(encoded)])
