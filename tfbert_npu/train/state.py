"""A training's whole state in one file, written whole or not at all, from which it goes on exactly.

Keras' BackupAndRestore begins an interrupted epoch again and keeps neither the dropout's seeds nor what other
callbacks have seen; a training that it resumes ends elsewhere than one that was never interrupted.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from tfbert_npu._files import replacing
from tfbert_npu.errors import CheckpointError

FILE = "training_state.safetensors"


def state_variables(model: Any) -> dict[str, keras.Variable]:
    """Weights, dropout seeds and optimizer state of a compiled model, by their place in order."""
    if not model.optimizer.built:
        model.optimizer.build(model.trainable_variables)
    metrics = {id(variable) for variable in model.metrics_variables}
    own = [variable for variable in model.variables if id(variable) not in metrics]
    names = {f"model.{index}": variable for index, variable in enumerate(own)}
    names.update({f"optimizer.{index}": v for index, v in enumerate(model.optimizer.variables)})
    return names


def save_state(path: Path, model: Any, progress: Mapping[str, Any]) -> None:
    """Write variables and progress; `progress` is what JSON can hold."""
    arrays = {
        # not ascontiguousarray, which makes a vector of a scalar
        name: np.array(keras.ops.convert_to_numpy(v), order="C")
        for name, v in state_variables(model).items()
    }
    with replacing(path) as temporary:
        save_file(arrays, temporary, metadata={"progress": json.dumps(progress)})


def load_state(path: Path, model: Any) -> dict[str, Any]:
    """Read variables into the model; gives the progress that was saved with them.

    Raises:
        CheckpointError: The file is damaged, or belongs to another model or optimizer.
    """
    variables = state_variables(model)
    try:
        with safe_open(path, framework="numpy") as file:
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            progress = json.loads(file.metadata()["progress"])
    except (SafetensorError, KeyError, TypeError, json.JSONDecodeError) as error:
        raise CheckpointError(f"{path} is damaged ({error}); remove it to begin again") from error
    _check(path, arrays, variables)
    for name, variable in variables.items():
        variable.assign(arrays[name])
    return progress


def read_progress(path: Path) -> dict[str, Any]:
    """The progress in a state file, without its variables."""
    with safe_open(path, framework="numpy") as file:
        return json.loads(file.metadata()["progress"])


def _check(path: Path, arrays: Mapping[str, np.ndarray], variables: Mapping[str, keras.Variable]) -> None:
    same: Sequence[bool] = [
        name in arrays and tuple(arrays[name].shape) == tuple(variable.shape)
        for name, variable in variables.items()
    ]
    if not all(same) or len(arrays) != len(variables):
        raise CheckpointError(
            f"{path} belongs to another model or optimizer; go on with the same settings, or remove it to "
            "begin again"
        )
