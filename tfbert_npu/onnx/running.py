"""An ONNX file's outputs, by onnxruntime on the CPU."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

import numpy as np

from tfbert_npu.artifact.embeddings import HostEmbeddings
from tfbert_npu.checkpoints.state import State
from tfbert_npu.onnx.model import EmbeddingPlace


def run_onnx(
    path: str | os.PathLike[str], inputs: Sequence[Mapping[str, np.ndarray]]
) -> list[dict[str, np.ndarray]]:
    """Outputs of an ONNX file for several batches, by onnxruntime on the CPU."""
    import onnxruntime

    session = onnxruntime.InferenceSession(os.fspath(path), providers=["CPUExecutionProvider"])
    wanted = [value.name for value in session.get_inputs()]
    names = [value.name for value in session.get_outputs()]
    return [
        dict(zip(names, session.run(None, {name: batch[name] for name in wanted}), strict=True))
        for batch in inputs
    ]


def prepared(
    state: State, inputs: Sequence[Mapping[str, np.ndarray]], embeddings: EmbeddingPlace
) -> list[dict[str, np.ndarray]]:
    """The batches as the graph takes them: as they are, or with embeddings summed here."""
    if embeddings == "inside":
        return [dict(batch) for batch in inputs]
    host = HostEmbeddings.from_state(state)
    return [{**batch, **host(batch)} for batch in inputs]
