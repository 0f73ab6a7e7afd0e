"""A WordPiece vocabulary: vocab.txt read, checked, and asked for its special tokens."""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Any

from tfbert_npu._files import refuse_pointer
from tfbert_npu.errors import VocabularyError
from tfbert_npu.preprocess.options import read_json

REQUIRED_TOKENS = ("[UNK]", "[CLS]", "[SEP]", "[PAD]")
SUFFIX_INDICATOR = "##"

# What to download of a hub repository in order to tokenize.
TOKENIZER_FILES = (
    "vocab.txt",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
)

_ROLES = {"unk": "[UNK]", "cls": "[CLS]", "sep": "[SEP]", "pad": "[PAD]", "mask": "[MASK]"}

# The largest published BERT vocabulary (LaBSE, 501 153 pieces) is 5 MB.
_MAX_BYTES = 64 * 2**20


@dataclass(frozen=True)
class Vocabulary:
    """Word pieces by id. A piece that continues a word starts with `##`.

    Attributes:
        tokens: The pieces; the id of a piece is its index. Of equal ones the last counts.

        special: Pairs of a role (`"unk"`, `"cls"`, `"sep"`, `"pad"`, `"mask"`) and the token that has it,
            where that is not BERT's own.

    Raises:
        VocabularyError: A special token is missing.

    Example:
        >>> from tfbert_npu import Vocabulary
        >>> vocabulary = Vocabulary(("[PAD]", "[UNK]", "[CLS]", "[SEP]", "a", "cat", "##s"))
        >>> vocabulary.cls_id, vocabulary.tokens[6]
        (2, '##s')
    """

    tokens: tuple[str, ...]
    special: tuple[tuple[str, str], ...] = ()

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
        required = [self.name(role) for role in ("unk", "cls", "sep", "pad")]
        missing = [token for token in required if token not in self.ids]
        if missing:
            raise VocabularyError(
                f"the vocabulary lacks {', '.join(missing)}", f"a BERT vocabulary needs {', '.join(required)}"
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

    def name(self, role: str) -> str:
        """The special token of a role, such as `"[CLS]"` for `"cls"`."""
        return dict(self.special).get(role, _ROLES[role])

    @property
    def core(self) -> tuple[str, ...]:
        """The five special tokens, whether or not there is one for masks."""
        return tuple(map(self.name, _ROLES))

    @property
    def unk_id(self) -> int:
        """Id of `[UNK]`, which stands for a word that no pieces spell."""
        return self.ids[self.name("unk")]

    @property
    def cls_id(self) -> int:
        """Id of `[CLS]`, the first token of every sequence."""
        return self.ids[self.name("cls")]

    @property
    def sep_id(self) -> int:
        """Id of `[SEP]`, which ends every segment."""
        return self.ids[self.name("sep")]

    @property
    def pad_id(self) -> int:
        """Id of `[PAD]`."""
        return self.ids[self.name("pad")]

    @property
    def mask_id(self) -> int:
        """Id of `[MASK]`.

        Raises:
            VocabularyError: The vocabulary has none.
        """
        mask = self.name("mask")
        if mask not in self.ids:
            raise VocabularyError(f"the vocabulary lacks {mask}, without which nothing can be masked")
        return self.ids[mask]

    def to_text(self) -> str:
        """The contents of vocab.txt."""
        return "".join(f"{token}\n" for token in self.tokens)

    @classmethod
    def from_text(
        cls,
        text: str,
        source: str = "the vocabulary",
        added: Mapping[str, Mapping[str, Any]] = MappingProxyType({}),
        special: tuple[tuple[str, str], ...] = (),
    ) -> Vocabulary:
        """Read the contents of a vocab.txt: one piece per line, ended by LF or CR LF.

        White space around a piece is not part of it, as in Google's `load_vocab`; a line of white space
        only keeps its id and matches nothing. Of equal lines the last counts, with a warning.

        Raises:
            VocabularyError: It is empty, starts with a byte order mark or lacks a special token. The message
                names `source`.
        """
        if text.startswith("\ufeff"):
            raise VocabularyError(f"{source} starts with a byte order mark", "save it as UTF-8 without BOM")
        # Not str.splitlines: U+2028 and U+0085 are pieces in published vocabularies.
        lines = text.split("\n")
        while lines and not lines[-1].rstrip("\r"):
            lines.pop()
        if not lines:
            raise VocabularyError(f"{source} is empty", "expected one word piece per line")
        tokens = _with_added([line.strip() or line.rstrip("\r") for line in lines], added, source)
        try:
            return cls(tuple(tokens), special)
        except VocabularyError as error:
            raise error.within(source) from None

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
            return cls.from_text(
                _read_text(directory / "vocab.txt"),
                os.fspath(directory / "vocab.txt"),
                added_tokens(directory),
                _special_names(directory),
            )
        if (directory / "tokenizer.json").is_file():
            tokens = _tokens_of_tokenizer_json(directory / "tokenizer.json")
            tokens = _with_added(tokens, added_tokens(directory), directory)
            return cls(tuple(tokens), _special_names(directory))
        assets = sorted((directory / "assets").glob("*vocab*.txt"))
        if len(assets) == 1:
            return cls.from_file(assets[0])
        raise FileNotFoundError(
            f"{directory} holds no vocabulary; expected vocab.txt, tokenizer.json or assets/*vocab*.txt"
        )


def added_tokens(directory: Path) -> dict[str, dict[str, Any]]:
    """Tokens that a model's files add to its vocabulary, in the order of their ids where they have one.

    They stand in tokenizer.json, in added_tokens.json, in tokenizer_config.json (`added_tokens_decoder`,
    `additional_special_tokens`, `extra_special_tokens`) or in special_tokens_map.json.

    Returns:
        Token -> its switches (`id`, `special`, `normalized`, `lstrip`, `rstrip`, `single_word`), as far as
        the files say them.

    Raises:
        VocabularyError: A file holds something else.
    """
    found: dict[str, dict[str, Any]] = {}
    config = read_json(directory / "tokenizer_config.json")
    special_map = read_json(directory / "special_tokens_map.json")
    try:
        for source in (special_map, config):
            for key in ("additional_special_tokens", "extra_special_tokens"):
                listed = source.get(key) or ()
                for one in listed.values() if isinstance(listed, dict) else listed:
                    entry = {"content": one} if isinstance(one, str) else dict(one)
                    found.setdefault(str(entry["content"]), {"special": True, **entry})
        for token, index in read_json(directory / "added_tokens.json").items():
            found.setdefault(str(token), {})["id"] = int(index)
        for index, entry in (config.get("added_tokens_decoder") or {}).items():
            found.setdefault(str(entry["content"]), {}).update({**entry, "id": int(index)})
        for entry in read_json(directory / "tokenizer.json").get("added_tokens") or ():
            found.setdefault(str(entry["content"]), {}).update({**entry, "id": int(entry["id"])})
    except (AttributeError, KeyError, OverflowError, TypeError, ValueError) as error:
        raise VocabularyError(
            f"{directory} holds added tokens in no known form ({error!r})", "download its tokenizer again"
        ) from error
    return dict(sorted(found.items(), key=lambda pair: pair[1].get("id", -1)))


def _with_added(
    tokens: Sequence[str], added: Mapping[str, Mapping[str, Any]], source: object
) -> Sequence[str]:
    """The pieces with the tokens that are added after them."""
    known = set(tokens)
    more = [(token, entry.get("id")) for token, entry in added.items() if token not in known]
    for index, (token, given) in enumerate(more, len(tokens)):
        if given not in (None, index):
            raise VocabularyError(
                f"{source} gives the added token {token!r} the id {given} where {index} is the next",
                "download the tokenizer again",
            )
    return [*tokens, *(token for token, _ in more)]


def _special_names(directory: Path) -> tuple[tuple[str, str], ...]:
    """The special tokens that have other names than BERT's."""
    names = {}
    for file in ("special_tokens_map.json", "tokenizer_config.json"):
        values = read_json(directory / file)
        for role, own in _ROLES.items():
            value = values.get(f"{role}_token")
            value = value.get("content") if isinstance(value, dict) else value
            if isinstance(value, str) and value != own:
                names[role] = value
    return tuple(names.items())


def _tokens_of_tokenizer_json(path: Path) -> Sequence[str]:
    try:
        model = json.loads(_read_text(path))["model"]
        kind, vocab = model.get("type", "WordPiece"), model["vocab"]
        if kind == "Unigram":
            return [str(piece) for piece, _ in vocab]
        prefix = model.get("continuing_subword_prefix", SUFFIX_INDICATOR)
        if kind != "WordPiece" or prefix != SUFFIX_INDICATOR:
            raise VocabularyError(f"{path} holds a {kind} model", "BERT needs WordPiece with '##' pieces")
        if not isinstance(vocab, dict):
            raise TypeError("the vocabulary is no object")
        tokens = sorted(vocab, key=vocab.__getitem__)
        contiguous = [vocab[token] for token in tokens] == list(range(len(tokens)))
    except (AttributeError, KeyError, TypeError, ValueError, RecursionError) as error:
        if isinstance(error, VocabularyError):
            raise
        raise VocabularyError(f"{path} is not the tokenizer.json of a WordPiece tokenizer") from error
    if not contiguous:
        raise VocabularyError(f"the ids in {path} are not 0 to {len(tokens) - 1}, each once")
    return tokens


def _read_text(path: Path) -> str:
    size = path.stat().st_size
    if size > _MAX_BYTES:
        raise VocabularyError(
            f"{path} is {size / 1e6:.0f} MB", f"no BERT vocabulary is larger than {_MAX_BYTES / 1e6:.0f} MB"
        )
    refuse_pointer(path)
    try:
        return path.read_bytes().decode("utf-8")
    except UnicodeDecodeError as error:
        raise VocabularyError(f"{path} is not UTF-8 at byte {error.start}", "save it as UTF-8") from error
