"""A WordPiece vocabulary: vocab.txt read, checked, and asked for its special tokens."""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from tfbert_npu._files import refuse_pointer
from tfbert_npu.errors import VocabularyError

REQUIRED_TOKENS = ("[UNK]", "[CLS]", "[SEP]", "[PAD]")
SUFFIX_INDICATOR = "##"

# What to download of a hub repository in order to tokenize.
TOKENIZER_FILES = ("vocab.txt", "tokenizer.json", "tokenizer_config.json")

# The largest published BERT vocabulary (LaBSE, 501 153 pieces) is 5 MB.
_MAX_BYTES = 64 * 2**20


@dataclass(frozen=True)
class Vocabulary:
    """Word pieces by id. A piece that continues a word starts with `##`.

    Attributes:
        tokens: The pieces; the id of a piece is its index. Of equal ones the last counts.

    Raises:
        VocabularyError: A special token is missing.

    Example:
        >>> from tfbert_npu import Vocabulary
        >>> vocabulary = Vocabulary(("[PAD]", "[UNK]", "[CLS]", "[SEP]", "a", "cat", "##s"))
        >>> vocabulary.cls_id, vocabulary.tokens[6]
        (2, '##s')
    """

    tokens: tuple[str, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "tokens", tuple(self.tokens))
        if self.shadowed:
            index = min(self.shadowed)
            token = self.tokens[index]
            warnings.warn(
                f"lines {index + 1} and {self.ids[token] + 1} of the vocabulary are both {token!r}; the last "
                f"of such lines counts ({len(self.shadowed)} do not), as in Google's load_vocab. Keep them, "
                "for without one all later ids change",
                stacklevel=3,
            )
        missing = [token for token in REQUIRED_TOKENS if token not in self.ids]
        if missing:
            raise VocabularyError(
                f"the vocabulary lacks {', '.join(missing)}; "
                f"a BERT vocabulary needs {', '.join(REQUIRED_TOKENS)}"
            )

    def __len__(self) -> int:
        return len(self.tokens)

    @cached_property
    def ids(self) -> dict[str, int]:
        """Id of each piece."""
        return {token: index for index, token in enumerate(self.tokens)}

    @cached_property
    def shadowed(self) -> frozenset[int]:
        """Ids that no text gets, because a later piece is the same."""
        return frozenset(range(len(self.tokens))) - frozenset(self.ids.values())

    @property
    def unk_id(self) -> int:
        """Id of `[UNK]`, which stands for a word that no pieces spell."""
        return self.ids["[UNK]"]

    @property
    def cls_id(self) -> int:
        """Id of `[CLS]`, the first token of every sequence."""
        return self.ids["[CLS]"]

    @property
    def sep_id(self) -> int:
        """Id of `[SEP]`, which ends every segment."""
        return self.ids["[SEP]"]

    @property
    def pad_id(self) -> int:
        """Id of `[PAD]`."""
        return self.ids["[PAD]"]

    @property
    def mask_id(self) -> int:
        """Id of `[MASK]`.

        Raises:
            VocabularyError: The vocabulary has none.
        """
        if "[MASK]" not in self.ids:
            raise VocabularyError("the vocabulary lacks [MASK], without which nothing can be masked")
        return self.ids["[MASK]"]

    def to_text(self) -> str:
        """The contents of vocab.txt."""
        return "".join(f"{token}\n" for token in self.tokens)

    @classmethod
    def from_text(cls, text: str, source: str = "the vocabulary") -> Vocabulary:
        """Read the contents of a vocab.txt: one piece per line, ended by LF or CR LF.

        White space around a piece is not part of it, as in Google's `load_vocab`; a line of white space
        only keeps its id and matches nothing. Of equal lines the last counts, with a warning.

        Raises:
            VocabularyError: It is empty, starts with a byte order mark or lacks a special token. The message
                names `source`.
        """
        if text.startswith("\ufeff"):
            raise VocabularyError(f"{source} starts with a byte order mark; save it as UTF-8 without BOM")
        # Not str.splitlines: U+2028 and U+0085 are pieces in published vocabularies.
        lines = text.split("\n")
        while lines and not lines[-1].rstrip("\r"):
            lines.pop()
        if not lines:
            raise VocabularyError(f"{source} is empty; expected one word piece per line")
        try:
            return cls(tuple(line.strip() or line.rstrip("\r") for line in lines))
        except VocabularyError as error:
            raise VocabularyError(f"{source}: {error}") from None

    @classmethod
    def from_file(cls, path: str | os.PathLike[str]) -> Vocabulary:
        """Read a vocab.txt.

        Raises:
            OSError: It cannot be read.
            VocabularyError: See `from_text`; or it is not UTF-8, or larger than any vocabulary.
        """
        return cls.from_text(_read_text(Path(path)), os.fspath(path))

    @classmethod
    def from_directory(cls, directory: str | os.PathLike[str]) -> Vocabulary:
        """Find and read the vocabulary of a model: vocab.txt, tokenizer.json, or a TF-Hub asset.

        Raises:
            FileNotFoundError: The directory, or any of these files in it, does not exist.
            VocabularyError: See `from_file`.
        """
        directory = Path(directory)
        if (directory / "vocab.txt").is_file():
            return cls.from_file(directory / "vocab.txt")
        if (directory / "tokenizer.json").is_file():
            return cls(tuple(_tokens_of_tokenizer_json(directory / "tokenizer.json")))
        assets = sorted((directory / "assets").glob("*vocab*.txt"))
        if len(assets) == 1:
            return cls.from_file(assets[0])
        raise FileNotFoundError(
            f"{directory} holds no vocabulary; expected vocab.txt, tokenizer.json or assets/*vocab*.txt"
        )


def _tokens_of_tokenizer_json(path: Path) -> Sequence[str]:
    try:
        model = json.loads(_read_text(path))["model"]
        kind, ids = model.get("type", "WordPiece"), model["vocab"]
        if (
            kind != "WordPiece"
            or model.get("continuing_subword_prefix", SUFFIX_INDICATOR) != SUFFIX_INDICATOR
        ):
            raise VocabularyError(f"{path} holds a {kind} model; BERT needs WordPiece with '##' pieces")
        tokens = sorted(ids, key=ids.__getitem__)
        contiguous = [ids[token] for token in tokens] == list(range(len(tokens)))
    except (AttributeError, KeyError, TypeError, json.JSONDecodeError) as error:
        raise VocabularyError(f"{path} is not the tokenizer.json of a WordPiece tokenizer") from error
    if not contiguous:
        raise VocabularyError(f"the ids in {path} are not 0 to {len(tokens) - 1}, each once")
    return tokens


def _read_text(path: Path) -> str:
    size = path.stat().st_size
    if size > _MAX_BYTES:
        raise VocabularyError(
            f"{path} is {size / 1e6:.0f} MB; no BERT vocabulary is larger than {_MAX_BYTES / 1e6:.0f} MB"
        )
    refuse_pointer(path)
    try:
        return path.read_bytes().decode("utf-8")
    except UnicodeDecodeError as error:
        raise VocabularyError(f"{path} is not UTF-8 at byte {error.start}; save it as UTF-8") from error
