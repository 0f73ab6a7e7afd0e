"""An ONNX file's outputs, by onnxruntime on the CPU."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np

from tfbert_npu.artifact.embeddings import HostEmbeddings
from tfbert_npu.artifact.packing import Pack, apart, feed, pack
from tfbert_npu.checkpoints.state import State
from tfbert_npu.config import BertConfig
from tfbert_npu.errors import require
from tfbert_npu.onnx.model import EmbeddingPlace
from tfbert_npu.runtime.router import real_lengths


def run_onnx(
    path: str | os.PathLike[str], inputs: Sequence[Mapping[str, np.ndarray]]
) -> list[dict[str, np.ndarray]]:
    """Outputs of an ONNX file for several batches, by onnxruntime on the CPU."""
    onnxruntime = require("onnxruntime", "onnx")
    session = onnxruntime.InferenceSession(os.fspath(path), providers=["CPUExecutionProvider"])
    wanted = [value.name for value in session.get_inputs()]
    names = [value.name for value in session.get_outputs()]
    return [
        dict(zip(names, session.run(None, {name: batch[name] for name in wanted}), strict=True))
        for batch in inputs
    ]


def random_inputs(
    config: BertConfig, shape: tuple[int, int], runs: int, seed: int = 0
) -> list[dict[str, np.ndarray]]:
    """Random ids with padding of many lengths, for a model without a tokenizer."""
    rng = np.random.default_rng(seed)
    batch, length = shape
    batches = []
    for run in range(runs):
        # Every other run has a full row: the last position must be reached as well.
        lengths = rng.integers(max(1, length // 8), length + 1, batch)
        if run % 2:
            lengths[0] = length
        mask = (np.arange(length) < lengths[:, None]).astype(np.int32)
        ids = rng.integers(0, config.vocab_size, shape) * mask
        types = (np.arange(length) >= lengths[:, None] // 2) * mask * (config.type_vocab_size > 1)
        batches.append(
            {
                "input_word_ids": ids.astype(np.int32),
                "input_mask": mask,
                "input_type_ids": types.astype(np.int32),
            }
        )
    return batches


class Placing(Protocol):
    """The options that say what a graph takes; `GraphOptions` has them, and who compiles one."""

    @property
    def embeddings(self) -> EmbeddingPlace:
        """Who sums the embeddings."""

    @property
    def packed(self) -> bool:
        """Whether a row holds several texts."""


class Rows:
    """Batches as a graph takes them, and what it gives as the batches' outputs.

    Args:
        state: The weights, for the embeddings.
        batches: int32 [B, S] under TF-Hub's names.
        options: What the graph takes.
    """

    def __init__(self, state: State, batches: Sequence[Mapping[str, np.ndarray]], options: Placing) -> None:
        self._shapes = [batch["input_word_ids"].shape for batch in batches]
        self._packs: list[list[Pack]] = []
        if not options.packed:
            self.fed = prepared(state, batches, options.embeddings)
            return
        self._host = HostEmbeddings.from_state(state)
        masks = [batch["input_mask"] for batch in batches]
        self._packs = [pack(real_lengths(mask), [mask.shape[1]]) for mask in masks]
        self.fed = [
            feed(self._host, batch, one)
            for batch, packs in zip(batches, self._packs, strict=True)
            for one in packs
        ]

    def outputs(self, given: Sequence[dict[str, np.ndarray]]) -> list[dict[str, np.ndarray]]:
        """One dict of outputs [B, ...] for each batch, of those of each feed in `fed`."""
        if not self._packs:
            return list(given)
        rest, found = iter(given), []
        for packs, (batch, length) in zip(self._packs, self._shapes, strict=True):
            parts = [next(rest) for _ in packs]
            outputs = {name: apart(packs, [p[name] for p in parts], batch, length) for name in parts[0]}
            if "sequence_output" in outputs:
                outputs["pooled_output"] = self._host.pooled(outputs["sequence_output"][:, 0])
            found.append(outputs)
        return found


def prepared(
    state: State, inputs: Sequence[Mapping[str, np.ndarray]], embeddings: EmbeddingPlace
) -> list[dict[str, np.ndarray]]:
    """The batches as the graph takes them: as they are, or with embeddings summed here."""
    if embeddings == "inside":
        return [dict(batch) for batch in inputs]
    host = HostEmbeddings.from_state(state)
    return [{**batch, **host(batch)} for batch in inputs]
