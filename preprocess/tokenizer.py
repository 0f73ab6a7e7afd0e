"""`BertTokenizer`: texts to BERT's three inputs without TensorFlow."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, Literal, NoReturn

import numpy as np
from tokenizers.decoders import WordPiece

from tfbert_npu.errors import VocabularyError
from tfbert_npu.preprocess.aligned_pieces import AlignedPieces
from tfbert_npu.preprocess.arguments import check_choices, checked_texts, mapped
from tfbert_npu.preprocess.host_packing import Padding, Segment, pack_rows, trimmed_rows, windowed_rows
from tfbert_npu.preprocess.normalizer import BertNormalizer
from tfbert_npu.preprocess.offsets import Text, as_str, byte_positions
from tfbert_npu.preprocess.options import Dialect, TextOptions, Trimming, one_of, read_options
from tfbert_npu.preprocess.pipeline import Pipeline, read_pipeline
from tfbert_npu.preprocess.saving import save_tokenizer
from tfbert_npu.preprocess.tf_text_normalizer import MAX_WORD_BYTES, TfTextNormalizer
from tfbert_npu.preprocess.vocabulary import SUFFIX_INDICATOR, TOKENIZER_FILES, Vocabulary
from tfbert_npu.preprocess.wordpiece import ChunkPieces, Normalizer, WordPieces
from tfbert_npu.repository import local_directory

OffsetUnit = Literal["characters", "bytes"]


class BertTokenizer:
    """Texts to `input_word_ids`, `input_mask` and `input_type_ids`, with the ids of `BertPreprocessor`.

    A text is a `str`, or UTF-8 `bytes`; bytes that are not UTF-8 count as U+FFFD, and so does a lone
    surrogate, which stands for such bytes in a `str`.

    Args:
        vocabulary: The word pieces.
        options: Dialect and switches.
        pipeline: What computes the pieces where a model's files ask for more than BERT's rules.

    Raises:
        VocabularyError: `options.allow_special_tokens` names a token that the vocabulary lacks.

    Example:
        >>> from tfbert_npu import BertTokenizer, Vocabulary
        >>> vocabulary = Vocabulary(("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "cat", "##s"))
        >>> tokenizer = BertTokenizer(vocabulary)
        >>> tokenizer(["A cat", "cats"], seq_length=6)["input_word_ids"].tolist()
        [[2, 5, 6, 3, 0, 0], [2, 6, 7, 3, 0, 0]]
    """

    def __init__(
        self, vocabulary: Vocabulary, options: TextOptions | None = None, pipeline: Pipeline | None = None
    ):
        self.vocabulary = vocabulary
        self.pipeline = pipeline
        self.options = options or TextOptions()
        self._normalizer: Normalizer
        if self.options.dialect == "bert":
            self._normalizer, self._words = BertNormalizer(self.options), WordPieces(vocabulary)
        else:
            self._normalizer = TfTextNormalizer(self.options)
            self._words = WordPieces(vocabulary, max_word_bytes=MAX_WORD_BYTES)
        self._chunks = ChunkPieces(self._normalizer, self._words)
        self._aligned = AlignedPieces(vocabulary, self._words, self.options)
        allowed = sorted(self.options.allow_special_tokens)
        if missing := [token for token in allowed if token not in vocabulary.ids]:
            raise VocabularyError(
                f"allow_special_tokens names {', '.join(missing)}, which the vocabulary lacks"
            )
        self._special = re.compile("|".join(map(re.escape, allowed))) if allowed else None

    def save_pretrained(self, directory: str | os.PathLike[str]) -> None:
        """Write Hugging Face's tokenizer files; see `saving.save_tokenizer`."""
        save_tokenizer(self.vocabulary, self.options, directory, self.pipeline)

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
        name = os.fspath(repo_or_dir)
        return cls.from_directory(directory, name, dialect, lower_case, allow_special_tokens)

    @classmethod
    def from_directory(
        cls,
        directory: Path,
        name: str = "",
        dialect: Dialect = "bert",
        lower_case: bool | None = None,
        allow_special_tokens: Iterable[str] = (),
    ) -> BertTokenizer:
        """The tokenizer of a model that is on this machine, called `name`; see `from_pretrained`."""
        vocabulary = Vocabulary.from_directory(directory)
        options = read_options(
            directory,
            name=name,
            dialect=dialect,
            lower_case=lower_case,
            allow_special_tokens=allow_special_tokens,
        )
        return cls(vocabulary, options, read_pipeline(directory, vocabulary, options, lower_case))

    @property
    def takes_pairs(self) -> bool:
        """Whether the model packs two texts as BERT does."""
        return self.pipeline is None or self.pipeline.pairs

    def encode(self, text: Text) -> list[int]:
        """Ids of the word pieces of `text`, without `[CLS]` and `[SEP]`."""
        text, chunks = as_str(text), self._normalizer.chunks
        if self.pipeline is not None:
            return list(self.pipeline.tokenizer.encode(text, add_special_tokens=False).ids)
        if self._special is None:
            return list(chain.from_iterable(map(self._chunks.__getitem__, chunks(text))))
        ids: list[int] = []
        for _, part, special in self._parts(text):
            if special is not None:
                ids.append(special)
            else:
                ids += chain.from_iterable(map(self._chunks.__getitem__, chunks(part)))
        return ids

    def tokenize(self, text: Text) -> list[str]:
        """The word pieces of `text`."""
        return [self.vocabulary.tokens[one] for one in self.encode(text)]

    def decode(self, ids: Iterable[int], skip_special_tokens: bool = False) -> str:
        """A text with these word pieces, as transformers writes it: a blank between words, none before `.`.

        Args:
            ids: Ids of word pieces.
            skip_special_tokens: Leave `[CLS]`, `[SEP]`, `[PAD]`, `[MASK]` and `[UNK]` out.
        """
        pieces = [self.vocabulary.tokens[int(one)] for one in ids]
        if skip_special_tokens:
            pieces = [piece for piece in pieces if piece not in self.vocabulary.core]
        if self.pipeline is not None and self.pipeline.tokenizer.decoder is not None:
            return str(self.pipeline.tokenizer.decoder.decode(pieces))
        return WordPiece(prefix=SUFFIX_INDICATOR).decode(pieces)

    def __len__(self) -> int:
        """Number of word pieces."""
        return len(self.vocabulary.tokens)

    def encode_with_offsets(
        self, text: Text, unit: OffsetUnit = "characters"
    ) -> tuple[list[int], list[tuple[int, int]]]:
        """Ids as `encode` gives them, and what each piece stands for in `text` as it was given.

        Args:
            text: The text.
            unit: `"characters"`, so that `text[start:end]` of a `str` is the piece's source, or
                `"bytes"` of its UTF-8 form, as `BertPreprocessor.tokenize_with_offsets` counts.

        Returns:
            Ids, and (start, end) for each; ascending, `end` exclusive.

        Raises:
            ValueError: In dialect `"tf_text"`, whose offsets do not index the user's text.
        """
        one_of(unit, OffsetUnit, "unit")
        if self.options.dialect != "bert":
            raise ValueError("dialect='tf_text' has no offsets into the user's text; use dialect='bert'")
        decoded = as_str(text)
        if self.pipeline is not None:
            encoded = self.pipeline.tokenizer.encode(decoded, add_special_tokens=False)
            return list(encoded.ids), _in_unit(encoded.offsets, unit, text, decoded)
        ids: list[int] = []
        offsets: list[tuple[int, int]] = []
        for base, part, special in self._parts(decoded):
            if special is not None:
                ids.append(special)
                offsets.append((base, base + len(part)))
            else:
                self._aligned.add(part, base, ids, offsets)
        return ids, _in_unit(offsets, unit, text, decoded)

    def __call__(
        self,
        texts: Text | Sequence[Text],
        text_pairs: Text | Sequence[Text] | None = None,
        seq_length: int = 128,
        *,
        trimming: Trimming = "round_robin",
        padding: Padding = "fixed",
        pad_to_multiple_of: int | None = None,
        stride: int | None = None,
        return_offsets: bool | OffsetUnit = False,
        **theirs: NoReturn,
    ) -> dict[str, np.ndarray]:
        """Encode texts, or pairs of texts.

        Args:
            texts: B texts; one text counts as a batch of one.
            text_pairs: B second segments; one without word pieces counts as none, as in Google's
                run_classifier.py and in transformers' `tokenizer(text, "")` (transformers' batches close it
                with a second `[SEP]`, and so does dialect `"tf_text"`, as TF-Hub's preprocessors do).
            seq_length: Length of a row, at most; longer input is trimmed, or cut into windows.
            trimming: How a pair shares the room; see `trimming.trim_pair`.
            padding: `"fixed"` pads every row to `seq_length`, `"longest"` to the longest row.
            pad_to_multiple_of: With `"longest"`, pad to a multiple of this, at most `seq_length`.
            stride: Cut a long last segment into windows that share this many pieces, instead of trimming.
            return_offsets: Also give what each piece stands for, in characters (True) or bytes.
            **theirs: None; transformers' arguments are refused with the name that they have here.

        Returns:
            `input_word_ids`, `input_mask` and `input_type_ids`, int32 [R, L], where R is B, or with `stride`
            the number of windows; with `stride`, `text_index`, int32 [R], the text of each window; with
            `return_offsets`, `offsets`, int32 [R, L, 2], (start, end) in the text that the piece came
            from, zero for special tokens and padding.

        Raises:
            ValueError: What is given are not texts, or not as many pairs as texts, or an argument is out of
                range; see also `encode_with_offsets`.
        """
        if theirs:
            raise TypeError(mapped(list(theirs)))
        check_choices(
            seq_length, 2 if text_pairs is None else 3, trimming, padding, pad_to_multiple_of, stride
        )
        unit: OffsetUnit | None = "characters" if return_offsets is True else (return_offsets or None)
        first = [self._segment(text, unit) for text in checked_texts(texts, "texts")]
        second = None
        if text_pairs is not None:
            if not self.takes_pairs:
                raise ValueError(
                    "the model's tokenizer.json packs two texts in another way than BERT; give single texts, "
                    "or pack the ids that encode() gives"
                )
            second = [self._segment(text, unit) for text in checked_texts(text_pairs, "text_pairs")]
            if len(first) != len(second):
                raise ValueError(f"{len(first)} texts but {len(second)} text_pairs; give one pair per text")
        if stride is None:
            rows = trimmed_rows(first, second, seq_length, trimming, self.options.dialect == "tf_text")
        else:
            rows = windowed_rows(first, second, seq_length, stride)
        packed = pack_rows(
            rows,
            seq_length,
            self.vocabulary,
            padding=padding,
            pad_to_multiple_of=pad_to_multiple_of,
            offsets=unit is not None,
        )
        if stride is not None:
            packed["text_index"] = np.array([row.text_index for row in rows], np.int32)
        return packed

    def _segment(self, text: Text, unit: OffsetUnit | None) -> Segment:
        return Segment(self.encode(text)) if unit is None else Segment(*self.encode_with_offsets(text, unit))

    def _parts(self, text: str) -> Iterator[tuple[int, str, int | None]]:
        """Stretches of text and allowed special tokens: (start, text, id of the special token or None)."""
        at = 0
        for match in self._special.finditer(text) if self._special else ():
            yield at, text[at : match.start()], None
            yield match.start(), match.group(), self.vocabulary.ids[match.group()]
            at = match.end()
        yield at, text[at:], None


def _in_unit(
    offsets: Sequence[tuple[int, int]], unit: OffsetUnit, text: Text, decoded: str
) -> list[tuple[int, int]]:
    if unit == "characters":
        return list(offsets)
    positions = byte_positions(text, decoded)
    return [(positions[start], positions[end]) for start, end in offsets]
