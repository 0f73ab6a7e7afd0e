"""What a model's tokenizer files ask beyond BERT's own rules, computed by Hugging Face's `tokenizers`.

Added tokens, another normalizer or pre-tokenizer, a Unigram model: exact on the host, through the library
that wrote the rules. The graph tokenizer has BERT's rules only and refuses these, with the part named.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Tokenizer, models, normalizers, pre_tokenizers

from tfbert_npu.errors import VocabularyError
from tfbert_npu.preprocess.options import TextOptions, read_json
from tfbert_npu.preprocess.vocabulary import SUFFIX_INDICATOR, Vocabulary, added_tokens

_BERT_CLASSES = ("Bert", "DistilBert", "Electra", "PreTrainedTokenizerFast", "TokenizersBackend")
_MAX_WORD = 100
_PAIR = ("cls", "A", "sep", "B", "sep")


@dataclass(frozen=True)
class Pipeline:
    """A tokenizer of the library `tokenizers`, and why it is needed."""

    tokenizer: Tokenizer
    parts: tuple[str, ...]
    """What the files ask that BERT's rules have not, in words."""
    pairs: bool
    """Whether two texts are packed as BERT packs them."""


def read_pipeline(
    directory: Path, vocabulary: Vocabulary, options: TextOptions, lower_case: bool | None = None
) -> Pipeline | None:
    """The pipeline that a model's files ask for; None where BERT's own rules are all.

    Args:
        directory: Directory of the model's files.
        vocabulary: Its vocabulary, added tokens included.
        options: Its switches; they override those of a BertNormalizer, as in transformers.
        lower_case: What the caller asked for.

    Raises:
        VocabularyError: The files ask for what neither computes; the message names the part.
    """
    config = read_json(directory / "tokenizer_config.json")
    _refuse_japanese(directory, config)
    path = directory / "tokenizer.json"
    rules = read_json(path)
    named = str(config.get("tokenizer_class") or "Bert")
    if not rules and not named.startswith(_BERT_CLASSES):
        raise VocabularyError(
            f"{directory} asks for tokenizer_class {named!r}, and without a tokenizer.json only BERT's are "
            "computed here",
            "save the tokenizer once with transformers' fast class",
        )
    try:
        parts = _foreign_parts(rules)
        pairs = _packs_as_bert(rules, vocabulary)
    except (AttributeError, TypeError, StopIteration) as error:
        raise VocabularyError(f"{path} is no tokenizer.json ({error!r})", "download it again") from error
    more = [token for token in added_tokens(directory) if token not in vocabulary.core]
    if more:
        shown = ", ".join(more[:4]) + (f" and {len(more) - 4} more" if len(more) > 4 else "")
        parts.append(f"added tokens ({shown})")
    if vocabulary.special:
        parts.append(f"special tokens of other names ({', '.join(vocabulary.core)})")
    if not parts:
        return None
    if options.dialect != "bert":
        raise VocabularyError(f"{directory} has {'; '.join(parts)}, which dialect='tf_text' does not know")
    normalizer = (rules.get("normalizer") or {}).get("type")
    if rules:
        if normalizer == "BertNormalizer":
            rules["normalizer"] |= _switches(options)
        elif lower_case is not None:
            raise VocabularyError(f"{path} has the normalizer {normalizer}, which lower_case= cannot change")
        tokenizer = _from_rules(path, rules, vocabulary, options)
    else:
        tokenizer = _from_vocabulary(directory, vocabulary, options, more)
    return Pipeline(tokenizer, tuple(parts), pairs)


def _refuse_japanese(directory: Path, config: Mapping[str, Any]) -> None:
    asked = {key: config.get(key) for key in ("word_tokenizer_type", "subword_tokenizer_type")}
    if config.get("tokenizer_class") == "BertJapaneseTokenizer" or any(asked.values()):
        words = ", ".join(f"{key} {value!r}" for key, value in asked.items())
        raise VocabularyError(
            f"{directory} asks for {words}, which only transformers' BertJapaneseTokenizer computes",
            "tokenize with it and give the ids to the encoder",
        )


def _foreign_parts(rules: Mapping[str, Any]) -> list[str]:
    """What a tokenizer.json holds that BERT's rules do not."""
    if not rules:
        return []
    parts = []
    for key, own in (("normalizer", "BertNormalizer"), ("pre_tokenizer", "BertPreTokenizer")):
        stage = rules.get(key, {"type": own}) or {}
        if stage.get("type") != own or stage.get("clean_text", True) is not True:
            inner = [one.get("type") for one in stage.get("normalizers", stage.get("pretokenizers", ()))]
            parts.append(f"the {key} {'+'.join(map(str, inner)) or stage.get('type')}")
    model = rules.get("model") or {}
    if model.get("type", "WordPiece") != "WordPiece":
        parts.append(f"a {model.get('type')} model")
    elif model.get("max_input_chars_per_word", _MAX_WORD) != _MAX_WORD:
        parts.append(f"words of up to {model['max_input_chars_per_word']} characters")
    return parts


def _switches(options: TextOptions) -> dict[str, Any]:
    return {
        "lowercase": options.lower_case,
        "strip_accents": options.strip_accents,
        "handle_chinese_chars": options.tokenize_chinese_chars,
    }


def _from_rules(path: Path, rules: dict[str, Any], vocabulary: Vocabulary, options: TextOptions) -> Tokenizer:
    """The rules of tokenizer.json, but BERT's own special tokens in a text stay text unless allowed."""
    vocab = (rules.get("model") or {}).get("vocab")
    inside = set(vocab) if isinstance(vocab, dict) else {piece for piece, _ in vocab or ()}
    unknown = (rules.get("model") or {}).get("unk_token") or "[UNK]"
    if isinstance(vocab, dict) and (not isinstance(unknown, str) or unknown not in inside):
        raise VocabularyError(f"{path} lacks its own unknown token {unknown!r}", "download it again")
    rules["added_tokens"] = [
        token
        for token in rules.get("added_tokens") or ()
        if token["content"] not in vocabulary.core
        or token["content"] not in inside
        or token["content"] in options.allow_special_tokens
    ]
    rules["truncation"] = rules["padding"] = None
    try:
        return Tokenizer.from_str(json.dumps(rules))
    except Exception as error:  # the library raises nothing narrower
        raise VocabularyError(f"{path} is no tokenizer.json ({error})", "download it again") from error


def _from_vocabulary(
    directory: Path, vocabulary: Vocabulary, options: TextOptions, more: list[str]
) -> Tokenizer:
    """vocab.txt with BERT's rules, and the tokens that lie beside it."""
    found = added_tokens(directory)
    base = len(vocabulary.tokens)
    while vocabulary.tokens[base - 1] in more:  # they get the next ids again below
        base -= 1
    pieces = {token: index for token, index in vocabulary.ids.items() if index < base}
    unknown = vocabulary.name("unk")
    model = models.WordPiece(pieces, unk_token=unknown, max_input_chars_per_word=_MAX_WORD)
    model.continuing_subword_prefix = SUFFIX_INDICATOR
    tokenizer = Tokenizer(model)
    tokenizer.normalizer = normalizers.BertNormalizer(
        lowercase=options.lower_case,
        strip_accents=options.strip_accents,
        handle_chinese_chars=options.tokenize_chinese_chars,
    )
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    for token in sorted([*more, *options.allow_special_tokens], key=vocabulary.ids.__getitem__):
        flags = found.get(token, {"special": True})
        special = bool(flags.get("special"))
        switches = {key: bool(flags.get(key)) for key in ("single_word", "lstrip", "rstrip")}
        normalized = bool(flags.get("normalized", not special))
        entry = AddedToken(token, special=special, normalized=normalized, **switches)
        (tokenizer.add_special_tokens if special else tokenizer.add_tokens)([entry])
        if tokenizer.token_to_id(token) != vocabulary.ids[token]:
            raise VocabularyError(
                f"{directory} gives {token!r} the id {vocabulary.ids[token]}, which is not the next one "
                "after its vocabulary",
                "save the tokenizer again with transformers",
            )
    return tokenizer


def _packs_as_bert(rules: Mapping[str, Any], vocabulary: Vocabulary) -> bool:
    """Whether the post-processor puts two texts together as `[CLS] a [SEP] b [SEP]`."""
    template = (rules.get("post_processor") or {}).get("pair")
    if template is None:
        return (rules.get("post_processor") or {}).get("type") in (None, "BertProcessing")
    names = {vocabulary.name(role): role for role in ("cls", "sep")}
    found = [next(iter(step.values())).get("id") for step in template]
    return tuple(names.get(one, one) for one in found) == _PAIR
