"""What a training starts from: a model's tokenizer and its weights, or new ones."""

from __future__ import annotations

import os
import warnings
from pathlib import Path
from typing import Any

from tfbert_npu.config import BertConfig
from tfbert_npu.preprocess import BertTokenizer, TextOptions


def tokenizer_of(
    model: str | os.PathLike[str], *, new: bool = False, revision: str | None = None
) -> BertTokenizer:
    """The tokenizer of a model, in the dialect in which the trained model will be read again.

    Args:
        model: A directory or a hub repository, in any form that `pull_from_hub` knows.
        new: There are no weights in it.
        revision: Branch, tag or commit of the repository.

    Raises:
        OSError: No such directory, repository or vocabulary.
        CheckpointError: No model of a known form, or none with a vocabulary.
    """
    if new:
        return BertTokenizer.from_pretrained(model, revision=revision)
    from tfbert_npu.hub.pull import pull_from_hub

    preprocessor = pull_from_hub(model, component="preprocessor", revision=revision)
    options = preprocessor.options
    if options.dialect != "bert":
        # A trained model is saved in Hugging Face's layout, which is read in dialect "bert".
        options = TextOptions(lower_case=options.lower_case)
    return BertTokenizer(preprocessor.vocabulary, options)


def head_of(
    cls: Any,
    model: str | os.PathLike[str],
    tokenizer: BertTokenizer,
    *,
    new: bool = False,
    revision: str | None = None,
    **kwargs: Any,
) -> Any:
    """A task head to train.

    Args:
        cls: The head's class.
        model: A directory or a hub repository; with `new`, a directory with `config.json`.
        tokenizer: The tokenizer that the head is trained with.
        new: Start from new weights throughout; without it, those that the checkpoint lacks are new.
        revision: Branch, tag or commit of the repository.
        **kwargs: Arguments of `from_pretrained`.

    Raises:
        ValueError: With `new`, the vocabulary is larger than the configuration says.
        CheckpointError: The model is no BERT.
    """
    if new:
        config = BertConfig.from_json(Path(model))
        if config.vocab_size < len(tokenizer.vocabulary):
            raise ValueError(
                f"the configuration of {model} says vocab_size {config.vocab_size} but its vocabulary "
                f"has {len(tokenizer.vocabulary)} pieces; make them equal"
            )
        return cls(config, **kwargs)
    with warnings.catch_warnings():
        # Weights that are new are what is trained here.
        warnings.filterwarnings("ignore", ".*start from new weights", UserWarning)
        return cls.from_pretrained(model, revision=revision, **kwargs)
