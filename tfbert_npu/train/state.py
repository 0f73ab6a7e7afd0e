"""A training's whole state in one file, written whole or not at all, from which it goes on exactly.

Keras' BackupAndRestore begins an interrupted epoch again and keeps neither the dropout's seeds nor what other
callbacks have seen; a training that it resumes ends elsewhere than one that was never interrupted.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from tfbert_npu._files import replacing
from tfbert_npu.errors import CheckpointError

FILE = "training_state.safetensors"
Origin = Mapping[str, Any]
"""What a training is made of, by name: hashes of data and starting weights, labels, options. JSON."""


def state_variables(model: Any) -> dict[str, keras.Variable]:
    """Weights, dropout seeds and optimizer state of a compiled model, by their place in order."""
    if not model.optimizer.built:
        model.optimizer.build(model.trainable_variables)
    metrics = {id(variable) for variable in model.metrics_variables}
    own = [variable for variable in model.variables if id(variable) not in metrics]
    names = {f"model.{index}": variable for index, variable in enumerate(own)}
    names.update({f"optimizer.{index}": v for index, v in enumerate(model.optimizer.variables)})
    return names


def weights_digest(layer: Any) -> str:
    """A hash of a layer's weights; seeds of its dropout do not count."""
    digest = hashlib.sha256()
    for variable in layer.weights:
        digest.update(np.ascontiguousarray(keras.ops.convert_to_numpy(variable)).data)
    return digest.hexdigest()


def save_state(path: Path, model: Any, progress: Mapping[str, Any], origin: Origin) -> None:
    """Write variables, progress and origin with a checksum; `progress` is what JSON can hold."""
    arrays = {
        # not ascontiguousarray, which makes a vector of a scalar
        name: np.array(keras.ops.convert_to_numpy(v), order="C")
        for name, v in state_variables(model).items()
    }
    metadata = {"progress": json.dumps(progress), "origin": json.dumps(origin)}
    metadata["sha256"] = _checksum(arrays, metadata)
    with replacing(path) as temporary:
        save_file(arrays, temporary, metadata=metadata)


def load_state(path: Path, model: Any, origin: Origin) -> dict[str, Any]:
    """Read variables into the model; gives the progress that was saved with them.

    Raises:
        CheckpointError: The file is damaged, or belongs to another training; the message names what differs.
    """
    variables = state_variables(model)
    try:
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata()
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        checksum = metadata.pop("sha256")
        progress, saved = json.loads(metadata["progress"]), json.loads(metadata["origin"])
    except (SafetensorError, KeyError, TypeError, AttributeError, ValueError, RecursionError) as error:
        raise CheckpointError(
            f"{path} is damaged ({error})", "train again from the beginning with --overwrite"
        ) from error
    if checksum != _checksum(arrays, metadata):
        raise CheckpointError(
            f"{path} is damaged (its checksum is another)", "train again from the beginning with --overwrite"
        )
    differing = [_difference(name, saved, json.loads(json.dumps(origin))) for name in {**saved, **origin}]
    if any(differing):
        raise CheckpointError(
            f"{path} belongs to a training with other {', '.join(filter(None, differing))}",
            "go on with the same data, model and options, or train again from the beginning with --overwrite",
        )
    shapes = {name: tuple(array.shape) for name, array in arrays.items()}
    if shapes != {name: tuple(variable.shape) for name, variable in variables.items()}:
        raise CheckpointError(
            f"{path} belongs to another model or optimizer",
            "go on with the same settings, or train again from the beginning with --overwrite",
        )
    for name, variable in variables.items():
        variable.assign(arrays[name])
    return progress


def _checksum(arrays: Mapping[str, np.ndarray], metadata: Mapping[str, str]) -> str:
    digest = hashlib.sha256(json.dumps(metadata, sort_keys=True).encode())
    for name in sorted(arrays):
        digest.update(f"{name} {arrays[name].dtype} {arrays[name].shape}".encode())
        digest.update(np.ascontiguousarray(arrays[name]).data)
    return digest.hexdigest()


def _difference(name: str, saved: Any, origin: Any) -> str:
    was, now = saved.get(name), origin.get(name)
    if was == now:
        return ""
    shown = [str(value) for value in (was, now)]
    # Hashes and long lists say nothing to a reader.
    return f"{name} ({shown[0]}, now {shown[1]})" if max(map(len, shown)) <= 30 else name
