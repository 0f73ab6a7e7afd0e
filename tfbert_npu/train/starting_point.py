"""What a training starts from: a model's tokenizer and its weights, or new ones."""

from __future__ import annotations

import hashlib
import os
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tfbert_npu.config import BertConfig
from tfbert_npu.hub.pull import pull_from_hub
from tfbert_npu.preprocess import BertTokenizer, TextOptions
from tfbert_npu.train.state import weights_digest


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


def freeze(model: Any, names: Sequence[str]) -> None:
    """Leave parts of a head's encoder as they are.

    Args:
        model: A `BertHead`.
        names: `embeddings`, `layer_0` and so on, `pooler`, or `encoder` for all of them.

    Raises:
        ValueError: There is no such part.
    """
    model.build()
    encoder = model.encoder
    parts = {"embeddings": encoder.embeddings}
    parts.update({f"layer_{index}": layer for index, layer in enumerate(encoder.layers)})
    if encoder.pooler is not None:
        parts["pooler"] = encoder.pooler
    for name in names:
        if name not in (*parts, "encoder"):
            raise ValueError(f"there is no {name!r} to freeze; there are {', '.join([*parts, 'encoder'])}")
        for part in parts.values() if name == "encoder" else [parts[name]]:
            part.trainable = False


def origin_of_weights(model: Any, tokenizer: BertTokenizer, *, new: bool) -> dict[str, str]:
    """Hashes of what a training starts from, for its state; before anything of the model is changed.

    New weights do not count: they are another draw in each process unless the user seeds it.
    """
    model.build()
    weights = repr(model.config) if new else weights_digest(model.encoder)
    vocabulary = tokenizer.vocabulary.to_text()
    return {
        "starting weights": hashlib.sha256(weights.encode()).hexdigest(),
        "vocabulary": hashlib.sha256(vocabulary.encode("utf-8", "surrogatepass")).hexdigest(),
    }
