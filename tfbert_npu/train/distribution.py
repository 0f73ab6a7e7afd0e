"""Data-parallel training: TensorFlow's own strategies."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any, get_args

from tfbert_npu.errors import require
from tfbert_npu.train.options import Strategy


def strategy_scope(name: Strategy) -> tuple[AbstractContextManager[Any], int]:
    """The scope to make a model in, and the number of replicas that share a batch.

    Args:
        name: `"none"`; `"mirrored"`, all GPUs of this machine; `"multi_worker"`, the machines that the
            environment variable TF_CONFIG names, each running the same command.

    Raises:
        ValueError: There is no such strategy.
    """
    if name not in get_args(Strategy):
        raise ValueError(f"strategy must be one of {get_args(Strategy)}, got {name!r}")
    if name == "none":
        return nullcontext(), 1
    tf = require("tensorflow", "tf")
    if name == "mirrored":
        strategy = tf.distribute.MirroredStrategy()
    else:
        strategy = tf.distribute.MultiWorkerMirroredStrategy()
    return strategy.scope(), strategy.num_replicas_in_sync
