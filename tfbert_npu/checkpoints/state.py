"""Tensors under any of Hugging Face's names, made into a *state* (see `weights.names`) and checked."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType

import numpy as np

from tfbert_npu.checkpoints.names import Row, encoder_rows, mlm_rows, pooler_rows, shapes
from tfbert_npu.config import BertConfig
from tfbert_npu.errors import CheckpointError
from tfbert_npu.heads import is_head_tensor

State = dict[str, np.ndarray]

_PREFIXES = ("bert.", "distilbert.")

# Buffers that old versions of transformers saved beside the weights.
_BUFFERS = ("embeddings.position_ids", "embeddings.token_type_ids")

# The output matrix of the MLM head and its bias are saved a second time under the decoder's name.
_DECODER_WEIGHT = ("cls.predictions.decoder.weight", "vocab_projector.weight")
_DECODER_BIAS = "cls.predictions.decoder.bias"
_WORD_EMBEDDINGS = "embeddings.word_embeddings.weight"


def to_state(tensors: Mapping[str, np.ndarray], config: BertConfig) -> State:
    """Rename the tensors of a Hugging Face checkpoint.

    The prefix of the encoder goes, `gamma` and `beta` become `weight` and `bias`, DistilBERT's names become
    BERT's, and what is there only a second time is dropped.

    Raises:
        CheckpointError: Two tensors get the same name, or the MLM head has an output matrix of its own.
    """
    from_distilbert = {}
    if config.model_type == "distilbert":
        rows = (*encoder_rows(config), *mlm_rows())
        from_distilbert = {row.distilbert: row.name for row in rows if row.distilbert is not None}
    state: State = {}
    for original, tensor in tensors.items():
        name = _plain_name(original)
        name = from_distilbert.get(name, name)
        if name in _BUFFERS:
            continue
        if name in state:
            raise CheckpointError(f"the checkpoint holds {name} twice, once with and once without a prefix")
        state[name] = tensor
    _drop_tied(state)
    return state


def check_state(
    state: Mapping[str, np.ndarray],
    rows: Iterable[Row],
    config: BertConfig,
    head: Mapping[str, tuple[int, ...]] = MappingProxyType({}),
) -> None:
    """Make sure that `state` holds the tensors of `rows`, each of the right shape, and no strange ones.

    Tensors of task heads are no strangers: which of them are wanted is for the caller to say.

    Args:
        state: The tensors.
        rows: Those that are wanted.
        config: The encoder's sizes.
        head: Shapes of a task head's own tensors (`names.head_shapes`).

    Raises:
        CheckpointError: Lists every tensor that is missing, unknown or of another shape.
    """
    expected = {**shapes(config), **head}
    wanted = {row.name for row in rows}
    known = expected.keys() | wanted
    problems = []
    missing = sorted(wanted - state.keys())
    if missing:
        problems.append(f"missing: {', '.join(missing)}")
    unknown = sorted(name for name in state if name not in known and not is_head_tensor(name))
    if unknown:
        problems.append(f"unknown: {', '.join(unknown)}")
    misshapen = [
        f"{name} is {list(state[name].shape)}, not {list(expected[name])}"
        for name in sorted(wanted & state.keys() & expected.keys())
        if tuple(state[name].shape) != expected[name]
    ]
    if misshapen:
        problems.append(f"of another shape than the configuration says: {', '.join(misshapen)}")
    not_numbers = sorted(
        name for name in wanted & state.keys() if not np.issubdtype(state[name].dtype, np.floating)
    )
    if not_numbers:
        problems.append(f"not floating point: {', '.join(not_numbers)}")
    if problems:
        raise CheckpointError(f"the checkpoint does not fit its configuration; {'; '.join(problems)}")


def has_pooler(state: Mapping[str, np.ndarray], config: BertConfig) -> bool:
    """Whether `state` holds any tensor of a pooler."""
    return any(row.name in state for row in pooler_rows(config))


def has_mlm_head(state: Mapping[str, np.ndarray]) -> bool:
    """Whether `state` holds any tensor of a masked language model head."""
    return any(row.name in state for row in mlm_rows())


def _plain_name(name: str) -> str:
    for prefix in _PREFIXES:
        name = name.removeprefix(prefix)
    # Checkpoints converted from TensorFlow 1 before 2019 kept its names for LayerNorm.
    if name.endswith(".gamma"):
        name = name.removesuffix("gamma") + "weight"
    elif name.endswith(".beta"):
        name = name.removesuffix("beta") + "bias"
    return name


def _drop_tied(state: State) -> None:
    for name in _DECODER_WEIGHT:
        matrix = state.pop(name, None)
        if matrix is not None and not np.array_equal(matrix, state.get(_WORD_EMBEDDINGS, matrix)):
            raise CheckpointError(
                f"{name} differs from {_WORD_EMBEDDINGS}; a masked language model head with an output matrix "
                "of its own (tie_word_embeddings=false) is not supported"
            )
    bias = state.pop(_DECODER_BIAS, None)
    if bias is not None and not np.array_equal(bias, state.setdefault("cls.predictions.bias", bias)):
        raise CheckpointError(f"{_DECODER_BIAS} differs from cls.predictions.bias; they must be the same")
