"""Google's TensorFlow 1 checkpoints: `bert_model.ckpt.*` with `bert_config.json` and `vocab.txt`.

Contract: google-research/bert, modeling.py (names and shapes), run_pretraining.py (MLM and NSP heads),
run_classifier.py and run_squad.py (their heads).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath

import numpy as np

from tfbert_npu.checkpoints.checkpoint import Checkpoint, read_variables, variable_shapes
from tfbert_npu.checkpoints.names import encoder_rows, head_rows, mlm_rows, pooler_rows
from tfbert_npu.checkpoints.state import warn_left_aside
from tfbert_npu.config import BertConfig
from tfbert_npu.errors import CheckpointError
from tfbert_npu.heads import heads

CONFIG = "bert_config.json"

# What an optimizer and the training loop leave in a checkpoint.
_OBJECT = "/.ATTRIBUTES/VARIABLE_VALUE"
_FIRST = "embeddings/word_embeddings"
_TRAINING = re.compile(
    r"(^|/)(global_step|beta1_power|beta2_power|save_counter|_CHECKPOINTABLE_OBJECT_GRAPH)$|^training/"
    r"|/ExponentialMovingAverage$|/(adam_m|adam_v|lamb_m|lamb_v|Adam|Adam_1|AdamWeightDecayOptimizer(_1)?|LAMBOptimizer(_1)?)$"
    r"|^(good_steps|bad_steps|current_loss_scale|loss_scale.*|training_step)$"
)


def read_google(directory: Path, prefix: str | None = None) -> Checkpoint:
    """Read a checkpoint directory as Google publishes it.

    Optimizer slots are left aside. The MLM, NSP, classification and question answering heads come along in
    the state where they are there.

    Args:
        directory: Holds `bert_config.json`, the checkpoint and perhaps `vocab.txt`.
        prefix: Name of the checkpoint, such as `"bert_model.ckpt"`; found by itself where there is one only.

    Raises:
        FileNotFoundError: A file is missing.
        CheckpointError: A file is damaged, or holds variables that are no BERT's.
    """
    config = BertConfig.from_json(directory / CONFIG, source="google")
    files = [path.name for path in directory.iterdir()]
    path = directory / (prefix or _named_by_state(directory) or find_prefix(files))
    shapes = variable_shapes(path)
    if any(name.endswith(_OBJECT) for name in shapes):
        raise CheckpointError(
            f"{path} is a TensorFlow 2 object checkpoint (tf.train.Checkpoint), which names its variables by "
            "the attributes of a program",
            "save the model as a SavedModel, or as safetensors with transformers",
        )
    layers = [layer for head in heads() for layer in head.layers if layer.google is not None]
    own = [row for layer in layers for row in head_rows(layer)]
    rows = {row.google: row for row in (*encoder_rows(config), *pooler_rows(config), *mlm_rows(), *own)}
    names = {_plain(name, shapes, path): name for name in shapes if not _TRAINING.search(name)}
    strangers = sorted(name for name in names if name not in rows)
    unknown = [name for name in strangers if name.startswith("bert/")]
    if unknown:
        shown = ", ".join(unknown[:8]) + (f" and {len(unknown) - 8} more" if len(unknown) > 8 else "")
        raise CheckpointError(
            f"{path} holds what a BERT with {config.num_hidden_layers} layers lacks ({shown})",
            f"is {CONFIG} the one that belongs to it?",
        )
    warn_left_aside(path, strangers)
    wanted = {original: rows[name] for name, original in names.items() if name in rows}
    state = {}
    for original, value in read_variables(path, wanted).items():
        row = wanted[original]
        turned = row.is_kernel and not row.google_out_in and value.ndim == 2
        state[row.name] = np.ascontiguousarray(value.T) if turned else value
    if "classifier.weight" in state:
        # These files do not name labels; how many there are, the classifier says.
        labels = tuple(f"LABEL_{index}" for index in range(len(state["classifier.weight"])))
        config = config.replace(id2label=labels)
    vocabulary = directory / "vocab.txt"
    return Checkpoint(config, state, vocabulary if vocabulary.is_file() else None)


def _plain(name: str, names: Iterable[str], path: Path) -> str:
    """A variable's name without the scope that stands before all of them, and `bert` for the encoder's own.

    Raises:
        CheckpointError: There are several encoders.
    """
    scopes = sorted({other.removesuffix(_FIRST) for other in names if other.endswith(_FIRST)})
    if len(scopes) > 1 and "bert/" not in scopes:
        raise CheckpointError(
            f"{path} holds several encoders ({', '.join(scopes)})", "save the one that you want alone"
        )
    scope = "bert/" if "bert/" in scopes or not scopes else scopes[0]
    if name.startswith(scope):
        return "bert/" + name.removeprefix(scope)
    outer = scope.removesuffix("bert/") if scope.endswith("/bert/") else ""
    return name.removeprefix(outer)


def _named_by_state(directory: Path) -> str | None:
    """The checkpoint that TensorFlow's `checkpoint` file calls the latest (`tf.train.latest_checkpoint`)."""
    try:
        text = (directory / "checkpoint").read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return None
    match = re.search(r'^model_checkpoint_path: "([^"]+)"', text, re.MULTILINE)
    name = PurePosixPath(match[1]).name if match else ""
    return name if name and (directory / f"{name}.index").is_file() else None


def find_prefix(files: Sequence[str]) -> str:
    """The name of the one checkpoint among file names.

    Raises:
        FileNotFoundError: There is none.
        CheckpointError: There are several and none is called `bert_model.ckpt`.
    """
    found = sorted(
        {PurePosixPath(name).name.removesuffix(".index") for name in files if name.endswith(".index")}
    )
    if not found:
        raise FileNotFoundError("there is no checkpoint: no file ends with .index")
    if len(found) == 1:
        return found[0]
    if "bert_model.ckpt" in found:
        return "bert_model.ckpt"
    raise CheckpointError(
        f"there are several checkpoints ({', '.join(found)})",
        "leave the one that is wanted in a directory of its own with bert_config.json",
    )
