"""What a repository holds, told from the names of its files, and which of them a component needs."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Literal

from tfbert_npu.errors import CheckpointError

Component = Literal["auto", "encoder", "preprocessor", "model"]
Form = Literal["huggingface", "saved_model", "google", "pytorch", "tensorflow", "npu"]

_TOKENIZER = ("vocab.txt", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json")
_SHARD = re.compile(r"(?P<stem>.+)-(?P<number>\d{5})-of-(?P<total>\d{5})(?P<suffix>\.\w+)")
_ELSEWHERE = {
    "flax_model.msgpack": "Flax weights",
    "model.onnx": "an ONNX model",
    "model.weights.h5": "a preset of keras-hub",
    "tf1_saved_model": "a TensorFlow 1 module",
    "model.keras": "a Keras model",
}


@dataclass(frozen=True)
class Layout:
    """The form of a model, the folder of the repository it lies in ("" for the root), and its files."""

    form: Form
    folder: str
    files: tuple[str, ...]


def find_layout(
    files: Sequence[str], component: Component = "auto", *, artifact_first: bool = False
) -> Layout:
    """Find out what is there, the best form first.

    Args:
        files: POSIX paths of all files of the repository. Where the root holds no model but exactly one
            folder does, as in Google's archives, that folder is taken.
        component: A preprocessor needs no weights.
        artifact_first: Whether an artifact comes before the weights that it may lie beside.

    Raises:
        CheckpointError: There is no model of a known form, several folders hold one, or a shard is missing.
    """
    folders = sorted(
        {str(PurePosixPath(file).parent) for file in files}, key=lambda name: (name != ".", name)
    )
    found: list[Layout] = []
    for folder in folders:
        prefix = "" if folder == "." else f"{folder}/"
        here = [file.removeprefix(prefix) for file in files if file.startswith(prefix)]
        layout = _layout_of(here, component)
        artifact = _artifact(here) if artifact_first else None
        if artifact is not None:
            layout = "npu", artifact
        if layout is None:
            continue
        form, wanted = layout
        result = Layout(form, prefix, tuple(prefix + file for file in wanted))
        if folder == ".":
            return result
        if not any(prefix.startswith(other.folder) for other in found):
            found.append(result)
    if len(found) == 1:
        return found[0]
    if found:
        folders_found = ", ".join(layout.folder.rstrip("/") for layout in found)
        raise CheckpointError(
            f"several folders hold a model ({folders_found})", "give the path of one of them"
        )
    raise _nothing_known(files, component)


def layout_of_file(files: Sequence[str], file: str) -> Layout:
    """The NPU layout of one `.rknn` file: without the directory's other ones, whatever else is there.

    Args:
        files: POSIX paths of all files of the repository.
        file: One of them; the nearest folder above it that has a `config.json` is the model's.

    Raises:
        CheckpointError: There is no such `.rknn` file, or no `config.json` above it.
    """
    compiled = [name for name in files if name.endswith(".rknn")]
    if file not in compiled:
        raise CheckpointError(f"there is no {file!r}", f"its .rknn files are {', '.join(compiled) or 'none'}")
    above = [str(folder) for folder in PurePosixPath(file).parents]
    prefixes = ["" if folder == "." else f"{folder}/" for folder in above]
    folder = next((prefix for prefix in prefixes if f"{prefix}config.json" in files), None)
    if folder is None:
        raise CheckpointError(f"there is no config.json above {file}, which says what model it is")
    here = [name.removeprefix(folder) for name in files if name.startswith(folder)]
    if "manifest.json" in here:
        wanted = [name for name in here if not name.endswith(".rknn") and not _is_hidden(name)]
    else:
        wanted = ["config.json", *_tokenizer(set(here))]
    return Layout("npu", folder, (*(folder + name for name in wanted), file))


def _tokenizer(names: set[str]) -> list[str]:
    tokenizer = [name for name in _TOKENIZER if name in names]
    if "tokenizer.json" in names:
        tokenizer.append("tokenizer.json")  # it may say what vocab.txt does not: rules, added tokens
    return tokenizer


def _is_hidden(name: str) -> bool:
    return PurePosixPath(name).name.startswith(".")


def _layout_of(files: Sequence[str], component: Component) -> tuple[Form, list[str]] | None:
    names = set(files)
    tokenizer = _tokenizer(names)
    if "saved_model.pb" in names and not _safetensors(names):
        wanted = [
            f for f in files if re.fullmatch(r"variables/variables\.(index|data-\d+-of-\d+)|assets/.+", f)
        ]
        return "saved_model", ["saved_model.pb", *wanted]
    if component == "preprocessor":
        if not {"vocab.txt", "tokenizer.json"} & names:
            return None
        configs = [name for name in ("config.json", "bert_config.json") if name in names]
        return ("google" if configs == ["bert_config.json"] else "huggingface"), [*configs, *tokenizer]
    if "config.json" in names:
        weights = _safetensors(names)
        if weights:
            return "huggingface", ["config.json", *weights, *tokenizer]
    if "bert_config.json" in names:
        checkpoint = [f for f in files if re.fullmatch(r"[^/]+\.(index|data-\d{5}-of-\d{5})", f)]
        state = ["checkpoint"] if "checkpoint" in names else []
        if any(file.endswith(".index") for file in checkpoint):
            return "google", ["bert_config.json", *state, *_complete(checkpoint), *tokenizer[:1]]
    if "config.json" in names:
        if (artifact := _artifact(files)) is not None:
            return "npu", artifact
        h5 = _sharded(names, "tf_model", ".h5")
        if h5:
            return "tensorflow", ["config.json", *h5, *tokenizer]
        pickles = _sharded(names, "pytorch_model", ".bin")
        if pickles:
            return "pytorch", ["config.json", *pickles, *tokenizer]
    return None


def _artifact(files: Sequence[str]) -> list[str] | None:
    """The files of an artifact of ours, or of rk-transformers."""
    compiled = [file for file in files if file.endswith(".rknn")]
    if "manifest.json" in files and (compiled or "model.onnx" in files):
        # The manifest vouches for every file, so they are all needed.
        return [file for file in files if not _is_hidden(file)]
    if compiled and "config.json" in files:
        described = [file for file in ("rknn.json", "model.onnx") if file in files]
        return ["config.json", *compiled, *described, *_tokenizer(set(files))]
    return None


def _safetensors(names: set[str]) -> list[str]:
    return _sharded(names, "model", ".safetensors")


def _sharded(names: set[str], stem: str, suffix: str) -> list[str]:
    """One file, or an index with all the shards of that stem."""
    if f"{stem}{suffix}" in names:
        return [f"{stem}{suffix}"]
    index = f"{stem}{suffix}.index.json"
    if index not in names:
        return []
    return [index, *_complete(sorted(name for name in names if _is_shard(name, stem, suffix)))]


def _is_shard(name: str, stem: str, suffix: str) -> bool:
    match = _SHARD.fullmatch(name)
    return match is not None and match["stem"] == stem and match["suffix"] == suffix


def _complete(names: Sequence[str]) -> Sequence[str]:
    """The names, once it is sure that of `-of-00003` all three are there."""
    there = set(names)
    missing = []
    for name in names:
        shard = re.fullmatch(r"(.+-)\d{5}-of-(\d{5})(.*)", name)
        if shard is None:
            continue
        first = 0 if ".data-" in name else 1
        numbers = range(first, first + int(shard[2]))
        missing += [f"{shard[1]}{number:05d}-of-{shard[2]}{shard[3]}" for number in numbers]
    lacking = sorted(set(missing) - there)
    if lacking:
        shown = ", ".join(lacking[:5]) + (f" and {len(lacking) - 5} more" if len(lacking) > 5 else "")
        raise CheckpointError(f"shards of the weights are missing: {shown}", "download the model again")
    return names


def _nothing_known(files: Iterable[str], component: Component) -> CheckpointError:
    names = {PurePosixPath(file).name for file in files}
    others = [f"{meaning} ({name})" for name, meaning in _ELSEWHERE.items() if name in names]
    if component == "preprocessor":
        return CheckpointError(
            "there is no vocabulary: no vocab.txt, no tokenizer.json and no TF-Hub preprocessor"
        )
    if others:
        return CheckpointError(
            f"the weights are in a form that is not read here: {', '.join(others)}",
            "load the model once with transformers and save_pretrained it, which writes model.safetensors",
        )
    if "config.json" in names:
        return CheckpointError(
            "there is a config.json but no weights beside it (model.safetensors)", "download the model again"
        )
    return CheckpointError(
        "there is no model of a known form",
        "known are config.json with model.safetensors or tf_model.h5, a TF2 SavedModel, Google's "
        "bert_config.json with bert_model.ckpt.*, and RKNN artifacts",
    )
