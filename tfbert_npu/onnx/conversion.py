"""A checkpoint as an entry of the cache: an artifact directory for the CPU, compared before it is used."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tfbert_npu.artifact.agreement import compare, failures
from tfbert_npu.artifact.hashing import state_sha256
from tfbert_npu.checkpoints.names import encoder_rows, pooler_rows
from tfbert_npu.checkpoints.state import State, check_state, has_pooler, warn_left_aside
from tfbert_npu.config import BertConfig
from tfbert_npu.errors import CheckpointError
from tfbert_npu.heads import HeadSpec
from tfbert_npu.onnx.cache import ConversionError
from tfbert_npu.onnx.directory import write_onnx_contents
from tfbert_npu.onnx.model import GraphOptions, output_names, output_specs, tensors_under, write_graph
from tfbert_npu.onnx.running import random_inputs, run_onnx
from tfbert_npu.onnx.signature import Signature

Reference = Callable[[Mapping[str, np.ndarray]], Mapping[str, Any]]

MIN_COSINE = 0.999999
"""Least cosine of an ONNX file's output with the model's own."""


@dataclass(frozen=True)
class Conversion:
    """A checkpoint that is to become an ONNX file."""

    config: BertConfig
    state: State
    head: HeadSpec
    tokenizer: Path
    """A directory with the vocabulary."""

    @property
    def kind(self) -> str:
        """The head's name for the manifest."""
        return self.head.name

    @property
    def weights_sha256(self) -> str:
        """Hash of the tensors that the graph holds."""
        return state_sha256(tensors_under(self.state, self.head))

    def check(self, origin: object) -> None:
        """Make sure that the state is that of an encoder.

        Raises:
            CheckpointError: A tensor is missing, or is of another shape; the message begins with `origin`.
        """
        pooler = pooler_rows(self.config) if has_pooler(self.state, self.config) else ()
        try:
            left_aside = check_state(self.state, [*encoder_rows(self.config), *pooler], self.config)
        except CheckpointError as error:
            raise error.within(origin) from error
        warn_left_aside(origin, left_aside)

    def write(self, directory: Path, reference: Reference | None) -> None:
        """Fill an empty directory.

        Args:
            directory: An empty one.
            reference: The model itself, to compare with; without one the outputs need only be finite.

        Raises:
            ConversionError: The graph's outputs are not the model's.
        """
        graph, options = write_graph(self.config, self.state, self.head), GraphOptions()
        path = directory / "model.onnx"
        path.write_bytes(graph.SerializeToString())
        shape = (2, min(24, self.config.max_position_embeddings))
        inputs = random_inputs(self.config, shape, runs=2)
        got = run_onnx(path, inputs)
        expected = got if reference is None else [reference(batch) for batch in inputs]
        known = output_specs(self.config, self.head)
        specs = [known[name] for name in output_names(self.config, self.head, None)]
        agreements = compare(got, expected, [batch["input_mask"] for batch in inputs], specs)
        if wrong := failures(agreements, MIN_COSINE):
            raise ConversionError(f"its ONNX graph is not the model: {'; '.join(wrong)}")
        write_onnx_contents(directory, self, Signature.of(graph), options, agreements)
