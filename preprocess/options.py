"""How text is cut: the dialect and its switches, and where a pretrained model says so."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from tfbert_npu._files import refuse_pointer
from tfbert_npu.errors import CheckpointError

Dialect = Literal["bert", "tf_text"]
Trimming = Literal["round_robin", "longest_first", "waterfall"]

_STAGES = ("normalizer", "pre_tokenizer", "model", "post_processor")
"""What a tokenizer.json is made of; other files have no such keys."""

_LOGGER = logging.getLogger(__name__)


def one_of(value: str, choices: Any, name: str) -> None:
    """Raise a `ValueError` that names the allowed values unless `value` is one of a `Literal`'s."""
    allowed = get_args(choices)
    if value not in allowed:
        raise ValueError(f"{name}={value!r} is unknown; choose one of {', '.join(map(repr, allowed))}")


@dataclass(frozen=True)
class TextOptions:
    """Switches of tokenization, named as in Hugging Face's tokenizer_config.json where it has them.

    Attributes:
        dialect: `"bert"`, Google's original tokenization.py, or `"tf_text"`, the tensorflow-text
            operations inside published TF-Hub preprocessors.
        lower_case: Lower-case the text (`do_lower_case`).
        strip_accents: Decompose (NFD) and drop nonspacing marks; None means "as `lower_case`".
        tokenize_chinese_chars: Make every CJK ideograph a word of its own.
        allow_special_tokens: Special tokens that user text may contain as such, e.g. `{"[MASK]"}`.
            All others are ordinary text: "[SEP]" in a text is a bracket, a word and a bracket.
    """

    dialect: Dialect = "bert"
    lower_case: bool = True
    strip_accents: bool | None = None
    tokenize_chinese_chars: bool = True
    allow_special_tokens: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        one_of(self.dialect, Dialect, "dialect")
        if isinstance(self.allow_special_tokens, str):
            raise ValueError("allow_special_tokens must be a set of tokens, such as {'[MASK]'}, not a string")
        object.__setattr__(self, "allow_special_tokens", frozenset(self.allow_special_tokens))
        for token in self.allow_special_tokens:
            if not re.fullmatch(r"\[[^\[\]\s]+\]", token):
                raise ValueError(f"allow_special_tokens holds {token!r}; a special token looks like '[MASK]'")
        if self.dialect == "tf_text":
            if self.strip_accents not in (None, self.lower_case) or not self.tokenize_chinese_chars:
                raise ValueError(
                    "dialect='tf_text' strips accents exactly when it lower-cases and always splits CJK "
                    "ideographs; use dialect='bert' for other settings"
                )
            if self.allow_special_tokens:
                raise ValueError(
                    "dialect='tf_text' knows no special tokens in text; use dialect='bert' with "
                    "allow_special_tokens"
                )

    @property
    def strips_accents(self) -> bool:
        """`strip_accents` with its default filled in."""
        return self.lower_case if self.strip_accents is None else self.strip_accents


def read_options(
    directory: Path,
    *,
    name: str = "",
    dialect: Dialect = "bert",
    lower_case: bool | None = None,
    allow_special_tokens: Iterable[str] = (),
) -> TextOptions:
    """Options of a pretrained model.

    Each switch comes from tokenizer_config.json, failing that from the normalizer in tokenizer.json.
    `lower_case` comes from the model's name as a last resort, and a warning says so.

    Args:
        directory: Directory of the model's files.
        name: Name of the model, such as `"google-bert/bert-base-uncased"`; by default the directory's.
        dialect: See `TextOptions`.
        lower_case: Overrides what the files say.
        allow_special_tokens: See `TextOptions`.

    Raises:
        CheckpointError: A file is not JSON, or a switch in it is not a boolean.
    """
    config = read_json(directory / "tokenizer_config.json")
    normalizer = read_json(directory / "tokenizer.json").get("normalizer") or {}
    if normalizer.get("type") != "BertNormalizer":
        if normalizer and lower_case is None and "do_lower_case" not in config:
            lower_case = False  # the file's own rules are taken, see `pipeline`; there is nothing to guess
        normalizer = {}

    def switch(config_key: str, normalizer_key: str) -> bool | None:
        for source, key in ((config, config_key), (normalizer, normalizer_key)):
            value = source.get(key)
            if value is not None:
                if not isinstance(value, bool):
                    raise CheckpointError(
                        f"{key} of the tokenizer in {directory} is {value!r}", "it must be true or false"
                    )
                return value
        return None

    if lower_case is None:
        lower_case = switch("do_lower_case", "lowercase")
    if lower_case is None:
        lower_case = _lower_case_from_name(name or directory.resolve().name)
    if dialect == "tf_text":
        return TextOptions(dialect, lower_case, allow_special_tokens=frozenset(allow_special_tokens))
    return TextOptions(
        dialect,
        lower_case,
        switch("strip_accents", "strip_accents"),
        switch("tokenize_chinese_chars", "handle_chinese_chars") is not False,
        frozenset(allow_special_tokens),
    )


def _lower_case_from_name(name: str) -> bool:
    last = Path(name).name.lower()
    # bert-base-chinese says neither; its published tokenizer_config.json has do_lower_case=false.
    lower_case = "uncased" in last or ("cased" not in last and last != "bert-base-chinese")
    _LOGGER.warning(
        "no tokenizer_config.json says whether %s lower-cases; lower_case=%s is a guess from its name: "
        "pass lower_case= to be sure",
        name,
        lower_case,
    )
    return lower_case


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object; empty where there is no such file.

    Raises:
        CheckpointError: It is not JSON, or no object.
    """
    refuse_pointer(path)
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} is not JSON: {error}") from error
    if not isinstance(value, dict):
        raise CheckpointError(f"{path} must hold a JSON object, not {type(value).__name__}")
    for key in _STAGES:
        if not isinstance(value.get(key) or {}, dict):
            raise CheckpointError(f"{path} has {value[key]!r} as its {key}, which must be a JSON object")
    return value
