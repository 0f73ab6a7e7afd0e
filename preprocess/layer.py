"""`BertPreprocessor`: texts to BERT's three inputs as a Keras 3 layer."""

from __future__ import annotations

import os
from typing import Any

from tfbert_npu.errors import require

for _module in ("tensorflow", "tensorflow_text", "keras"):
    require(_module, "tf")

import keras  # noqa: E402

from tfbert_npu.errors import VocabularyError  # noqa: E402
from tfbert_npu.preprocess.inputs import as_segments, checked_length  # noqa: E402
from tfbert_npu.preprocess.options import Dialect, TextOptions, Trimming, one_of  # noqa: E402
from tfbert_npu.preprocess.parts import (  # noqa: E402
    BertDetokenize,
    BertPackInputs,
    BertTokenize,
    BertTokenizeWithOffsets,
    packed_spec,
)
from tfbert_npu.preprocess.saving import save_tokenizer  # noqa: E402
from tfbert_npu.preprocess.tokenizer import BertTokenizer  # noqa: E402
from tfbert_npu.preprocess.vocabulary import Vocabulary  # noqa: E402
from tfbert_npu.preprocess.vocabulary_layer import VocabularyLayer  # noqa: E402


@keras.saving.register_keras_serializable("tfbert_npu")
class BertPreprocessor(VocabularyLayer):
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

    Attributes:
        tokenize: Texts to RaggedTensor int32 [B, words, pieces]; see `parts.BertTokenize`.
        tokenize_with_offsets: The same with byte offsets; see `parts.BertTokenizeWithOffsets`.
        bert_pack_inputs: One or two segments of word pieces to the inputs; see `parts.BertPackInputs`.
        detokenize: Word pieces to words; see `parts.BertDetokenize`.

    Example:
        >>> from tfbert_npu import BertPreprocessor, Vocabulary
        >>> vocabulary = Vocabulary(("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "cat", "##s"))
        >>> preprocessor = BertPreprocessor(vocabulary, seq_length=6)
        >>> preprocessor(["A cat", "cats"])["input_word_ids"].numpy().tolist()
        [[2, 5, 6, 3, 0, 0], [2, 6, 7, 3, 0, 0]]
    """

    def __init__(
        self,
        vocabulary: Vocabulary,
        options: TextOptions | None = None,
        seq_length: int = 128,
        trimming: Trimming = "round_robin",
        **kwargs: Any,
    ):
        super().__init__(vocabulary, options, **kwargs)
        one_of(trimming, Trimming, "trimming")
        self.seq_length = checked_length(seq_length, 1)
        self.trimming = trimming
        self.tokenize = BertTokenize(vocabulary, self.options)
        self.tokenize_with_offsets = BertTokenizeWithOffsets(vocabulary, self.options)
        self.bert_pack_inputs = BertPackInputs(vocabulary, self.options, self.seq_length, trimming)
        self.detokenize = BertDetokenize(vocabulary, self.options)

    @classmethod
    def from_pretrained(
        cls,
        repo_or_dir: str | os.PathLike[str],
        seq_length: int = 128,
        dialect: Dialect = "bert",
        *,
        trimming: Trimming = "round_robin",
        name: str | None = None,
        **tokenizer_options: Any,
    ) -> BertPreprocessor:
        """The preprocessor of a model.

        Args:
            repo_or_dir: As `dialect`, and what is raised: see `BertTokenizer.from_pretrained`.
            seq_length: L, the length of every row.
            dialect: `"bert"` or `"tf_text"`.
            trimming: How two segments share the room.
            name: Name of the layer.
            **tokenizer_options: The other arguments of `BertTokenizer.from_pretrained`: `lower_case`,
                `allow_special_tokens`, and `revision`, `token`, `cache_dir`, `local_files_only` of a hub.
        """
        tokenizer = BertTokenizer.from_pretrained(repo_or_dir, dialect=dialect, **tokenizer_options)
        return cls.of(tokenizer, seq_length, trimming, name=name)

    @classmethod
    def of(
        cls,
        tokenizer: BertTokenizer,
        seq_length: int = 128,
        trimming: Trimming = "round_robin",
        name: str | None = None,
    ) -> BertPreprocessor:
        """The preprocessor that does in the graph what a tokenizer does on the host.

        Raises:
            VocabularyError: The model's files ask for more than BERT's rules, which the graph has not.
        """
        if tokenizer.pipeline is not None:
            raise VocabularyError(
                f"the model's tokenizer has {'; '.join(tokenizer.pipeline.parts)}, which the graph cannot "
                "compute",
                "tokenize on the host with BertTokenizer.from_pretrained",
            )
        return cls(tokenizer.vocabulary, tokenizer.options, seq_length, trimming, name=name)

    def save_pretrained(self, directory: str | os.PathLike[str]) -> None:
        """Write Hugging Face's tokenizer files; see `saving.save_tokenizer`."""
        save_tokenizer(self.vocabulary, self.options, directory)

    def __call__(self, inputs: Any, seq_length: int | None = None, **kwargs: Any) -> dict[str, Any]:
        """Check the texts, make them tensors as Keras wants them, and `call`."""
        return super().__call__(as_segments(inputs), seq_length=seq_length, **kwargs)

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
        return self._graph.encode(segments, self._length(segments, seq_length), self.trimming)

    def compute_output_spec(self, inputs: Any, seq_length: int | None = None) -> dict[str, Any]:
        """Symbolic outputs, int32 [B, L]."""
        segments = inputs if isinstance(inputs, (list, tuple)) else [inputs]
        return packed_spec(segments[0].shape[0], self._length(segments, seq_length))

    def _length(self, segments: Any, seq_length: int | None) -> int:
        return checked_length(self.seq_length if seq_length is None else seq_length, len(segments))

    def get_config(self) -> dict[str, Any]:
        """Configuration, vocabulary included."""
        return {**super().get_config(), "seq_length": self.seq_length, "trimming": self.trimming}
