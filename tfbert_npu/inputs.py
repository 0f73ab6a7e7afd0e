"""Checks of an encoder's inputs, made before Keras touches them, so that an error names its cause."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from tfbert_npu.config import BertConfig

WORD_IDS = "input_word_ids"
MASK = "input_mask"
TYPE_IDS = "input_type_ids"
MLM_POSITIONS = "masked_lm_positions"
OUR_NAMES = {"input_ids": WORD_IDS, "attention_mask": MASK, "token_type_ids": TYPE_IDS}
"""transformers' names, and what they are called here."""


def check_inputs(inputs: Any, config: BertConfig, mlm: bool = False) -> dict[str, Any]:
    """The inputs as a dict of integer tensors or arrays of rank 2, or an error that says what is wrong.

    Values are looked at only where they are at hand: numpy arrays and eager tensors. Inside a graph an id
    that is out of range is left to TensorFlow, whose gather on the CPU raises.

    Args:
        inputs: What the layer was called with. DistilBERT needs no `input_type_ids`.
        config: For the vocabulary's size, the longest sequence and the number of token types.
        mlm: Whether `masked_lm_positions` [B, P] is wanted as well.

    Raises:
        ValueError: Not a dict; keys missing or too many; not integers; not of rank 2; shapes that differ; a
            sequence longer than `max_position_embeddings`; an id out of range.
    """
    if isinstance(inputs, dict) and _clearly_right(inputs, config, mlm):
        return inputs
    needed = [WORD_IDS, MASK, TYPE_IDS, *([MLM_POSITIONS] if mlm else [])]
    optional = [] if config.type_vocab_size else [TYPE_IDS]
    if not isinstance(inputs, Mapping):
        raise ValueError(
            f"inputs must be a dict with {_listed(needed)}, got {type(inputs).__name__}; BertTokenizer and "
            "BertPreprocessor make it of texts"
        )
    missing = [name for name in needed if name not in inputs and name not in optional]
    extra = [str(name) for name in inputs if name not in needed]
    if missing or extra:
        theirs = [f"{name} is {OUR_NAMES[name]}" for name in extra if name in OUR_NAMES]
        if theirs:
            raise ValueError(f"inputs have transformers' names; here {_listed(theirs)}, so rename them")
        problems = [f"lack {_listed(missing)}"] if missing else []
        problems += [f"have the unknown {_listed(extra)}"] if extra else []
        raise ValueError(f"inputs {' and '.join(problems)}; wanted are {_listed(needed)}")
    tensors = {name: _integers(name, inputs[name]) for name in needed if name in inputs}
    shape = tuple(tensors[WORD_IDS].shape)
    for name, tensor in tensors.items():
        if name != MLM_POSITIONS and not _compatible(shape, tuple(tensor.shape)):
            raise ValueError(
                f"{name} has shape {tuple(tensor.shape)} but {WORD_IDS} has shape {shape}; they must be alike"
            )
    if shape[1] == 0:
        raise ValueError(f"{WORD_IDS} has shape {shape}: a sequence needs one token at least")
    if shape[1] is not None and shape[1] > config.max_position_embeddings:
        raise ValueError(
            f"the sequences have {shape[1]} tokens but the model has positions for "
            f"{config.max_position_embeddings}; choose a seq_length of at most that"
        )
    _check_range(tensors, WORD_IDS, config.vocab_size, "the vocabulary has")
    _check_range(tensors, MASK, 2, "a mask holds 1 for tokens and 0 for padding, that is")
    if config.type_vocab_size:
        _check_range(tensors, TYPE_IDS, config.type_vocab_size, "the model's token types are")
    if mlm and shape[1] is not None:
        _check_range(tensors, MLM_POSITIONS, shape[1], "the sequence's tokens are")
    return tensors


def _clearly_right(inputs: dict[str, Any], config: BertConfig, mlm: bool) -> bool:
    """Whether these are the usual arrays without a fault, told at a fraction of what finding a fault costs.

    A request that is answered in microseconds notices the difference.
    """
    words = inputs.get(WORD_IDS)
    if len(inputs) != 3 + mlm or type(words) is not np.ndarray or words.ndim != 2:
        return False
    length = words.shape[1]
    if not 0 < length <= config.max_position_embeddings:
        return False
    for name, size in (
        (WORD_IDS, config.vocab_size),
        (MASK, 2),
        (TYPE_IDS, config.type_vocab_size),
        *(((MLM_POSITIONS, length),) if mlm else ()),
    ):
        array = inputs.get(name)
        if type(array) is not np.ndarray or array.dtype != np.int32:
            return False
        if array.shape != words.shape and (name != MLM_POSITIONS or array.ndim != 2):
            return False
        # As unsigned numbers the negative ones are large.
        if not array.size or array.view(np.uint32).max() >= size:
            return False
    return True


def _integers(name: str, value: Any) -> Any:
    if not hasattr(value, "dtype") or not hasattr(value, "shape"):
        try:
            value = np.asarray(value)
        except ValueError as error:
            raise ValueError(f"{name} must be a rectangle of integers: {error}") from error
        if value.size == 0:
            value = value.astype(np.int32)
    dtype = value.dtype.name if hasattr(value.dtype, "name") else str(value.dtype)
    if not dtype.startswith(("int", "uint")):
        raise ValueError(f"{name} must hold integers, got {dtype}")
    if len(value.shape) != 2:
        raise ValueError(f"{name} must have rank 2, [batch, length], got shape {tuple(value.shape)}")
    return value


def _check_range(tensors: Mapping[str, Any], name: str, size: int, whose: str) -> None:
    if name not in tensors:
        return
    tensor = tensors[name]
    if isinstance(tensor, np.ndarray):
        values = tensor
    elif hasattr(tensor, "numpy"):
        values = tensor.numpy()
    else:
        return  # symbolic: there are no values yet
    if values.size and not (values.min() >= 0 and values.max() < size):
        row, column = np.argwhere((values < 0) | (values >= size))[0]
        raise ValueError(
            f"{name}[{row}, {column}] is {values[row, column]}, but {whose} 0 to {size - 1}; "
            "was it made for another model?"
        )


def _compatible(left: tuple[int | None, ...], right: tuple[int | None, ...]) -> bool:
    return len(left) == len(right) and all(
        a is None or b is None or a == b for a, b in zip(left, right, strict=True)
    )


def _listed(names: list[str]) -> str:
    return ", ".join(names)
