"""What sentence-transformers' files say about turning hidden states into a sentence vector."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from tfbert_npu._failed_writes import make_directory
from tfbert_npu._files import replacing
from tfbert_npu.checkpoints.safetensors_files import read_tensors
from tfbert_npu.errors import CheckpointError
from tfbert_npu.paths import file_inside

PoolingMode = Literal["cls", "max", "mean", "mean_sqrt_len_tokens", "weightedmean", "lasttoken"]
Activation = Literal["Identity", "Tanh", "ReLU", "Sigmoid"]

MODES: tuple[PoolingMode, ...] = get_args(PoolingMode)
ACTIVATIONS: tuple[Activation, ...] = get_args(Activation)
SENTENCE_FILES = (
    "modules.json",
    "sentence_bert_config.json",
    "config_sentence_transformers.json",
    "*_Pooling/config.json",
    "*_Dense/config.json",
    "*_Dense/model.safetensors",
)
"""Patterns of the files in a repository."""

# sentence-transformers before 5 wrote one flag for each mode.
_OLD_FLAGS: dict[str, PoolingMode] = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}


@dataclass(frozen=True)
class Dense:
    """A linear layer after the pooling."""

    weight: np.ndarray
    """float32 [out, in]."""
    bias: np.ndarray | None
    activation: Activation


@dataclass(frozen=True)
class SentenceOptions:
    """From hidden states to a sentence vector.

    The defaults are what an encoder gets whose files say nothing: the mean of its hidden states, as it is.
    """

    pooling: tuple[PoolingMode, ...] = ("mean",)
    """Concatenated in this order."""
    include_prompt: bool = True
    """Whether the prompt's tokens are pooled as well."""
    dense: tuple[Dense, ...] = ()
    normalize: bool = False
    """Whether the vector has length 1."""
    prompts: Mapping[str, str] = field(default_factory=dict)
    """Put before the text, by name."""
    default_prompt_name: str | None = None
    max_seq_length: int | None = None
    lower_case: bool = False
    """Lower-case the text before the tokenizer does what it does."""
    truncate_dim: int | None = None
    """Numbers of the vector that are kept."""
    stated: bool = False
    """Whether any file says so; False: these are the defaults."""


def read_sentence_options(directory: Path) -> SentenceOptions:
    """The sentence options of a model's directory; the defaults where it has no `modules.json`.

    Args:
        directory: What sentence-transformers' `save` wrote, or any model.

    Raises:
        CheckpointError: A file is damaged, or names a module or a mode that this package does not know.
    """
    tokenizer = _read(directory / "tokenizer_config.json")
    longest = tokenizer.get("model_max_length")
    # transformers writes 10 ** 30 for "no limit".
    limit = int(longest) if isinstance(longest, (int, float)) and 0 < longest < 10**6 else None
    path = directory / "modules.json"
    if not path.is_file():
        return SentenceOptions(max_seq_length=limit)
    pooling: tuple[PoolingMode, ...] = ()
    include_prompt, normalize, dense = True, False, []
    for module in _modules(path):
        name = str(module.get("type", "")).rpartition(".")[2]
        folder = str(module.get("path", ""))
        if name == "Transformer":
            continue
        if name == "Pooling":
            pooling, include_prompt = _read_pooling(_file(directory, folder, "config.json"))
        elif name == "Dense":
            dense.append(_read_dense(directory, folder))
        elif name == "Normalize":
            normalize = True
        elif name != "Dropout":  # which does nothing outside of training
            raise CheckpointError(
                f"{path} names the module {module.get('type')!r}, which is none of Transformer, Pooling, "
                "Dense and Normalize",
                "use sentence-transformers for this model",
            )
    if not pooling:
        raise CheckpointError(f"{path} names no Pooling", "add one, or remove the file to take the mean")
    sentence = _read(directory / "sentence_bert_config.json")
    whole = _read(directory / "config_sentence_transformers.json")
    prompts, default = whole.get("prompts") or {}, whole.get("default_prompt_name")
    if not isinstance(prompts, dict) or not isinstance(default, str | None):
        raise CheckpointError(
            f"{directory / 'config_sentence_transformers.json'} holds prompts in no known form",
            "download it again",
        )
    prompts = {str(key): str(value) for key, value in prompts.items()}
    if default is not None and default not in prompts:
        raise CheckpointError(
            f"{directory / 'config_sentence_transformers.json'} has the default prompt {default!r}, but only "
            f"the prompts {', '.join(prompts) or 'none'}",
            "add it to prompts",
        )
    return SentenceOptions(
        pooling=pooling,
        include_prompt=include_prompt,
        dense=tuple(dense),
        normalize=normalize,
        prompts=prompts,
        default_prompt_name=default,
        max_seq_length=_count(sentence, "max_seq_length", directory) or limit,
        lower_case=bool(sentence.get("do_lower_case", False)),
        truncate_dim=_count(whole, "truncate_dim", directory),
        stated=True,
    )


def write_sentence_options(directory: Path, options: SentenceOptions, hidden: int) -> None:
    """Write the files that `read_sentence_options` and sentence-transformers read beside an encoder's own.

    Args:
        directory: The model's.
        options: Without Dense layers, which are files of their own.
        hidden: Length of a hidden state.
    """
    pooling: dict[str, Any] = {
        "word_embedding_dimension": hidden,
        "include_prompt": options.include_prompt,
    }
    flags = {flag: mode in options.pooling for flag, mode in _OLD_FLAGS.items()}
    if tuple(mode for flag, mode in _OLD_FLAGS.items() if flags[flag]) == options.pooling:
        pooling.update(flags)  # which every version reads
    else:
        pooling["pooling_mode"] = list(options.pooling)
    named = (("", "Transformer"), ("1_Pooling", "Pooling"), ("2_Normalize", "Normalize"))
    modules = [
        {"idx": index, "name": str(index), "path": path, "type": f"sentence_transformers.models.{name}"}
        for index, (path, name) in enumerate(named[: 3 if options.normalize else 2])
    ]
    files: dict[str, Any] = {
        "1_Pooling/config.json": pooling,
        "sentence_bert_config.json": {
            "max_seq_length": options.max_seq_length,
            "do_lower_case": options.lower_case,
        },
        "config_sentence_transformers.json": {
            "prompts": dict(options.prompts),
            "default_prompt_name": options.default_prompt_name,
            "truncate_dim": options.truncate_dim,
        },
        "modules.json": modules,
    }
    for name, values in files.items():
        make_directory((directory / name).parent)
        with replacing(directory / name) as temporary:
            temporary.write_text(json.dumps(values, indent=1) + "\n", encoding="utf-8")


def _count(values: dict[str, Any], name: str, directory: Path) -> int | None:
    """A positive integer, or None where there is none."""
    value = values.get(name)
    if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < 1):
        raise CheckpointError(f"{directory} gives {name} as {value!r}, which is no count", "correct the file")
    return value


def check_width(options: SentenceOptions, hidden: int, origin: object) -> int:
    """The length of a sentence vector over hidden states of this size.

    Raises:
        CheckpointError: A Dense layer takes another width than it is given.
    """
    width = hidden * len(options.pooling)
    for layer in options.dense:
        out, into = layer.weight.shape
        if into != width:
            raise CheckpointError(
                f"a Dense layer of {origin} takes {into} numbers where the pooling gives {width}",
                "the files are of two models, so download them again",
            )
        width = out
    return width


def _modules(path: Path) -> list[dict[str, Any]]:
    modules = _parse(path)
    if not isinstance(modules, list) or not all(isinstance(module, dict) for module in modules):
        raise CheckpointError(f"{path} is no list of modules", "download it again")
    return modules


def _read_pooling(path: Path) -> tuple[tuple[PoolingMode, ...], bool]:
    values = _read(path)
    flags = tuple(mode for flag, mode in _OLD_FLAGS.items() if values.get(flag))
    given = values.get("pooling_mode")
    modes: tuple[Any, ...] = flags
    if given is not None:
        modes = (given,) if isinstance(given, str) else tuple(given)
    unknown = [mode for mode in modes if mode not in MODES]
    if unknown or not modes:
        raise CheckpointError(
            f"{path} asks for the pooling {', '.join(map(str, unknown)) or 'of nothing'}",
            f"known are {', '.join(MODES)}",
        )
    if given is not None and flags and set(flags) != set(modes):
        raise CheckpointError(
            f"{path} asks for {', '.join(modes)} in pooling_mode but for {', '.join(flags)} by its flags",
            "remove one of the two",
        )
    return modes, bool(values.get("include_prompt", True))


def _read_dense(directory: Path, name: str) -> Dense:
    values = _read(_file(directory, name, "config.json"))
    folder = directory / name
    activation = str(values.get("activation_function", "Tanh")).rpartition(".")[2]
    if activation not in ACTIVATIONS:
        raise CheckpointError(
            f"{folder / 'config.json'} names the activation {activation!r}",
            f"known are {', '.join(ACTIVATIONS)}",
        )
    if not (folder / "model.safetensors").is_file():
        raise CheckpointError(
            f"{folder} holds no model.safetensors",
            "save the model again with sentence-transformers, which writes it in place of a pickle",
        )
    tensors = read_tensors(folder)
    weight = tensors.get("linear.weight")
    if weight is None or weight.ndim != 2:
        raise CheckpointError(f"{folder / 'model.safetensors'} holds no linear.weight", "download it again")
    bias = tensors.get("linear.bias")
    return Dense(
        np.asarray(weight, np.float32), None if bias is None else np.asarray(bias, np.float32), activation
    )


def _file(directory: Path, folder: str, name: str) -> Path:
    path = file_inside(directory, f"{folder}/{name}" if folder else name)
    if not path.is_file():
        raise CheckpointError(f"{path} is missing although modules.json names it", "download it again")
    return path


def _read(path: Path) -> dict[str, Any]:
    values = _parse(path) if path.is_file() else {}
    if not isinstance(values, dict):
        raise CheckpointError(f"{path} is no JSON object", "download it again")
    return values


def _parse(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} is no JSON file ({error})", "download it again") from error
