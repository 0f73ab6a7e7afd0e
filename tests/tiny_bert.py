"""A tiny model with a vocabulary of its own, for tests that need no shared data."""

import json
import string
from pathlib import Path

from tfbert_npu import BertConfig, BertTokenizer
from tfbert_npu.preprocess import Vocabulary

WORDS = ["the", "cat", "dog", "sat", "ran", "good", "bad", "berlin", "paris", "anna", "in", "who", "where"]
TOKENS = (
    "[PAD]",
    "[UNK]",
    "[CLS]",
    "[SEP]",
    "[MASK]",
    *string.ascii_lowercase,
    *("##" + letter for letter in string.ascii_lowercase),
    *WORDS,
    *".,?!-'",
)


def tokenizer() -> BertTokenizer:
    return BertTokenizer(Vocabulary(TOKENS))


def config(**changes) -> BertConfig:
    sizes = {
        "vocab_size": len(TOKENS),
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 48,
        "max_position_embeddings": 64,
        "hidden_dropout_prob": 0.1,
    }
    return BertConfig(**{**sizes, **changes})


def write_checkpoint(directory: Path, **changes) -> Path:
    from tfbert_npu import BertEncoder

    BertEncoder(config(**changes)).save_pretrained(directory)
    (directory / "vocab.txt").write_text("\n".join(TOKENS) + "\n")
    (directory / "tokenizer_config.json").write_text(json.dumps({"do_lower_case": True}))
    return directory
