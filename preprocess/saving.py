"""A tokenizer's files in Hugging Face's layout."""

from __future__ import annotations

import json
import os
from pathlib import Path

from tfbert_npu._failed_writes import make_directory
from tfbert_npu._files import replacing
from tfbert_npu.preprocess.options import TextOptions
from tfbert_npu.preprocess.pipeline import Pipeline
from tfbert_npu.preprocess.vocabulary import Vocabulary

_SPECIAL = {
    "unk_token": "[UNK]",
    "sep_token": "[SEP]",
    "pad_token": "[PAD]",
    "cls_token": "[CLS]",
    "mask_token": "[MASK]",
}


def save_tokenizer(
    vocabulary: Vocabulary,
    options: TextOptions,
    directory: str | os.PathLike[str],
    pipeline: Pipeline | None = None,
) -> None:
    """Write `vocab.txt` and `tokenizer_config.json`, which transformers' `BertTokenizer` reads.

    The layout knows no dialect: what was `dialect="tf_text"` has to be loaded with it again.

    Args:
        vocabulary: The word pieces.
        options: Switches of the text.
        pipeline: Rules beyond BERT's; they are written as a `tokenizer.json`, in place of `vocab.txt`.
        directory: Made if need be. Other files in it stay as they are, but a `tokenizer.json` that is there
            would be read in place of these by others, and so must not be.

    Raises:
        FileExistsError: The directory holds a `tokenizer.json`.
    """
    path = Path(directory)
    if (path / "tokenizer.json").exists():
        raise FileExistsError(
            f"{path} holds a tokenizer.json, which others would read instead of what is saved; remove it"
        )
    if pipeline is not None:
        _save_pipeline(vocabulary, pipeline, path)
        return
    config = {
        "tokenizer_class": "BertTokenizer",
        "do_lower_case": options.lower_case,
        "strip_accents": options.strip_accents,
        "tokenize_chinese_chars": options.tokenize_chinese_chars,
        **{key: token for key, token in _SPECIAL.items() if token in vocabulary.ids},
    }
    make_directory(path)
    with replacing(path / "vocab.txt") as temporary:
        temporary.write_text(vocabulary.to_text(), encoding="utf-8", newline="\n")
    with replacing(path / "tokenizer_config.json") as temporary:
        temporary.write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def _save_pipeline(vocabulary: Vocabulary, pipeline: Pipeline, path: Path) -> None:
    rules = json.loads(pipeline.tokenizer.to_str())
    # In a text they count as text here, and as themselves to others.
    there = {token["content"] for token in rules["added_tokens"]}
    switches = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    for token in vocabulary.core:
        if token in vocabulary.ids and token not in there:
            rules["added_tokens"].append({"id": vocabulary.ids[token], "content": token, **switches})
    rules["added_tokens"].sort(key=lambda token: token["id"])
    roles = zip(("unk", "cls", "sep", "pad", "mask"), vocabulary.core, strict=True)
    names = {f"{role}_token": token for role, token in roles if token in vocabulary.ids}
    config = {"tokenizer_class": "PreTrainedTokenizerFast", **names}
    make_directory(path)
    for name, value in (("tokenizer.json", rules), ("tokenizer_config.json", config)):
        with replacing(path / name) as temporary:
            temporary.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
