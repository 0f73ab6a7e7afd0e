"""Tensors under any of Hugging Face's names, made into a *state* (see `weights.names`) and checked."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType

import numpy as np

from tfbert_npu.checkpoints.names import Row, encoder_rows, mlm_rows, pooler_rows, shapes
from tfbert_npu.config import BertConfig
from tfbert_npu.errors import CheckpointError
from tfbert_npu.heads import is_head_tensor

State = dict[str, np.ndarray]

_PREFIXES = ("bert.", "distilbert.")
_FIRST = "embeddings.word_embeddings.weight"
"""Every encoder has it; what stands before it in a checkpoint is the encoder's prefix."""
_OWN = ("embeddings.", "encoder.layer.", "transformer.layer.", "pooler.")
"""What the names of an encoder's tensors begin with."""

# Buffers that old versions of transformers saved beside the weights.
_BUFFERS = ("embeddings.position_ids", "embeddings.token_type_ids")

# The output matrix of the MLM head and its bias are saved a second time under the decoder's name.
_DECODER_WEIGHT = ("cls.predictions.decoder.weight", "vocab_projector.weight")
_DECODER_BIAS = "cls.predictions.decoder.bias"
_MLM = "cls.predictions"
_WORD_EMBEDDINGS = "embeddings.word_embeddings.weight"


def to_state(tensors: Mapping[str, np.ndarray], config: BertConfig) -> State:
    """Rename the tensors of a Hugging Face checkpoint.

    The prefix of the encoder goes, whatever it is (`bert.`, `module.bert.`, `text_model.`), `gamma` and
    `beta` become `weight` and `bias`, DistilBERT's names become BERT's, and what is there only a second time
    is dropped.

    Raises:
        CheckpointError: Two tensors get the same name, or there are several encoders.
    """
    outer, prefix = _prefixes(tensors)
    from_distilbert = {}
    if config.model_type == "distilbert":
        rows = (*encoder_rows(config), *mlm_rows())
        from_distilbert = {row.distilbert: row.name for row in rows if row.distilbert is not None}
    state: State = {}
    for original, tensor in tensors.items():
        name = _plain_name(original.removeprefix(outer).removeprefix(prefix))
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
) -> list[str]:
    """Make sure that `state` holds the tensors of `rows`, each of the right shape.

    Tensors of task heads are no strangers: which of them are wanted is for the caller to say.

    Args:
        state: The tensors.
        rows: Those that are wanted.
        config: The encoder's sizes.
        head: Shapes of a task head's own tensors (`names.head_shapes`).

    Returns:
        Names of tensors that no part of ours computes, such as those of a CRF.

    Raises:
        CheckpointError: Lists every tensor that is missing or of another shape, and those of an encoder that
            the configuration does not know.
    """
    expected = {**shapes(config), **head}
    wanted = {row.name for row in rows}
    known = expected.keys() | wanted
    problems = []
    missing = sorted(wanted - state.keys())
    if missing:
        problems.append(f"missing: {', '.join(missing)}")
    strangers = sorted(name for name in state if name not in known and not is_head_tensor(name))
    unknown = [name for name in strangers if name.startswith(_OWN)]
    if unknown:
        problems.append(f"unknown: {', '.join(unknown)}")
    elif missing and strangers:
        problems.append(f"of another model: {', '.join(strangers)}")
    if is_untied(state) and any(row.name in wanted for row in mlm_rows()):
        problems.append(
            "its masked language model head has an output matrix of its own (tie_word_embeddings=false), "
            "which is not supported; load the encoder alone, with mlm=False"
        )
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
        raise CheckpointError("the checkpoint does not fit its configuration", f"{'; '.join(problems)}")
    return [*strangers, *([f"{_MLM} (tie_word_embeddings=false)"] if is_untied(state) else [])]


def warn_left_aside(origin: object, names: Sequence[str]) -> None:
    """Say once what of a checkpoint was not read, because no part of ours computes it."""
    if not names:
        return
    shown = ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")
    warnings.warn(f"{origin} holds more than is read here; left aside: {shown}", stacklevel=4)


def has_pooler(state: Mapping[str, np.ndarray], config: BertConfig) -> bool:
    """Whether `state` holds any tensor of a pooler."""
    return any(row.name in state for row in pooler_rows(config))


def has_mlm_head(state: Mapping[str, np.ndarray]) -> bool:
    """Whether `state` holds any tensor of a masked language model head of ours."""
    return any(row.name in state for row in mlm_rows()) and not is_untied(state)


def is_untied(state: Mapping[str, np.ndarray]) -> bool:
    """Whether the masked language model head has an output matrix that is not the word embeddings."""
    return any(name in state for name in _DECODER_WEIGHT)


def _prefixes(names: Iterable[str]) -> tuple[str, str]:
    """What goes before every name, and what goes before the encoder's after that.

    `module.bert.` of a model that was trained in parallel is `module.` before all and `bert.` before the
    encoder's; the prefix of an attribute that holds an encoder, such as `text_model.`, is the encoder's only.
    """
    found = sorted({name.removesuffix(_FIRST) for name in names if name.endswith(_FIRST)})
    known = [prefix for prefix in found if prefix in ("", *_PREFIXES)]
    if len(found) > 1 and not known:
        raise CheckpointError(
            f"the checkpoint holds several encoders ({', '.join(found)})", "save the one that you want alone"
        )
    prefix = (known or found or [""])[0]
    own = next((own for own in _PREFIXES if prefix.endswith(f".{own}")), None)
    return ("", prefix) if own is None else (prefix.removesuffix(own), own)


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
        matrix = state.get(name)
        if matrix is not None and np.array_equal(matrix, state.get(_WORD_EMBEDDINGS, matrix)):
            del state[name]
    bias = state.pop(_DECODER_BIAS, None)
    if bias is None or np.array_equal(bias, state.setdefault("cls.predictions.bias", bias)):
        return
    if not is_untied(state):
        raise CheckpointError(f"{_DECODER_BIAS} differs from cls.predictions.bias", "they must be the same")
