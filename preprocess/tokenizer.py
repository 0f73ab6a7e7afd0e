"""`BertTokenizer`: texts to BERT's three inputs without TensorFlow."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from itertools import chain
from typing import Any

import numpy as np

from tfbert_npu.preprocess.normalizer import BertNormalizer
from tfbert_npu.preprocess.options import Dialect, TextOptions, Trimming, read_options
from tfbert_npu.preprocess.trimming import trim_pair
from tfbert_npu.preprocess.vocabulary import Vocabulary
from tfbert_npu.preprocess.wordpiece import ChunkPieces, WordPieces
from tfbert_npu.repository import local_directory

TOKENIZER_FILES = ("vocab.txt", "tokenizer.json", "tokenizer_config.json")

Text = str | bytes


class BertTokenizer:
    """Texts to `input_word_ids`, `input_mask` and `input_type_ids`, with the ids of `BertPreprocessor`.

    Args:
        vocabulary: The word pieces.
        options: Dialect and switches.
    """

    def __init__(self, vocabulary: Vocabulary, options: TextOptions | None = None):
        self.vocabulary = vocabulary
        self.options = options or TextOptions()
        self._normalizer = BertNormalizer(self.options)
        self._chunks = ChunkPieces(self._normalizer, WordPieces(vocabulary))
        self._special_ids = {token: (vocabulary.ids[token],) for token in self.options.allow_special_tokens}
        self._special = (
            re.compile(f"({'|'.join(map(re.escape, sorted(self._special_ids)))})")
            if self._special_ids
            else None
        )

    @classmethod
    def from_pretrained(
        cls,
        repo_or_dir: str | os.PathLike[str],
        *,
        dialect: Dialect = "bert",
        lower_case: bool | None = None,
        allow_special_tokens: Iterable[str] = (),
        **hub_options: Any,
    ) -> BertTokenizer:
        """The tokenizer of a model.

        Args:
            repo_or_dir: A directory with vocab.txt or tokenizer.json, or a hub repository.
            dialect: `"bert"` for Hugging Face and Google checkpoints, `"tf_text"` for TF-Hub's.
            lower_case: Overrides what the model's files say.
            allow_special_tokens: Special tokens that a text may contain as such, e.g. `{"[MASK]"}`.
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
        return cls(Vocabulary.from_directory(directory), options)

    def encode(self, text: Text) -> list[int]:
        """Ids of the word pieces of `text`, without `[CLS]` and `[SEP]`.

        Bytes are UTF-8; what is not counts as U+FFFD.
        """
        if isinstance(text, bytes):
            text = text.decode("utf-8", "replace")
        if self._special is None:
            return list(chain.from_iterable(map(self._chunks.__getitem__, self._normalizer.chunks(text))))
        ids: list[int] = []
        for part in self._special.split(text):
            if part in self._special_ids:
                ids += self._special_ids[part]
            else:
                ids += chain.from_iterable(map(self._chunks.__getitem__, self._normalizer.chunks(part)))
        return ids

    def __call__(
        self,
        texts: Text | Sequence[Text],
        text_pairs: Text | Sequence[Text] | None = None,
        seq_length: int = 128,
        *,
        trimming: Trimming = "round_robin",
    ) -> dict[str, np.ndarray]:
        """Encode texts, or pairs of texts, to fixed length.

        Args:
            texts: B texts; one text counts as a batch of one.
            text_pairs: B second segments.
            seq_length: L, the length of every row; longer input is trimmed.
            trimming: How a pair shares the room; see `trimming.trim_pair`.

        Returns:
            `input_word_ids`, `input_mask` and `input_type_ids`, int32 [B, L].

        Raises:
            ValueError: Not texts, as many pairs as texts, or `seq_length` has no room for the special tokens.
        """
        first = [self.encode(text) for text in _checked(texts, "texts")]
        rows: list[list[int]] = []
        second_starts: list[int] = []
        cls_id, sep_id, pad_id = self.vocabulary.cls_id, self.vocabulary.sep_id, self.vocabulary.pad_id
        budget = seq_length - (2 if text_pairs is None else 3)
        if budget < 0:
            raise ValueError(
                f"seq_length={seq_length} has no room for the {seq_length - budget} special tokens; "
                f"use at least {seq_length - budget}"
            )
        if text_pairs is None:
            rows = [[cls_id, *ids[:budget], sep_id] for ids in first]
        else:
            second = [self.encode(text) for text in _checked(text_pairs, "text_pairs")]
            if len(first) != len(second):
                raise ValueError(f"{len(first)} texts but {len(second)} text_pairs; give one pair per text")
            for a, b in zip(first, second, strict=True):
                n, m = trim_pair(trimming, len(a), len(b), budget, min, max)
                rows.append([cls_id, *a[:n], sep_id, *b[:m], sep_id])
                second_starts.append(n + 2)
        lengths = np.fromiter(map(len, rows), np.int32, len(rows))[:, None]
        column = np.arange(seq_length, dtype=np.int32)
        mask = column < lengths
        word_ids = np.full((len(rows), seq_length), pad_id, np.int32)
        word_ids[mask] = np.fromiter(chain.from_iterable(rows), np.int32, int(lengths.sum()))
        type_ids = np.zeros_like(word_ids)
        if text_pairs is not None:
            type_ids[mask & (column >= np.array(second_starts, np.int32).reshape(-1, 1))] = 1
        return {"input_word_ids": word_ids, "input_mask": mask.astype(np.int32), "input_type_ids": type_ids}


def _checked(texts: Text | Sequence[Text], name: str) -> Sequence[Text]:
    if isinstance(texts, (str, bytes)):
        return [texts]
    if not isinstance(texts, (list, tuple, np.ndarray)):
        raise ValueError(f"{name} must be a text or a sequence of texts, not {type(texts).__name__}")
    for index, text in enumerate(texts):
        if not isinstance(text, (str, bytes)):
            raise ValueError(f"{name}[{index}] must be str or bytes, not {type(text).__name__}")
    return texts
