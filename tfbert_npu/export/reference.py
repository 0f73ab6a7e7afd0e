"""The inputs and outputs that an artifact carries so that `tfbert-npu verify` can check it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from tfbert_npu.artifact.reference import Reference
from tfbert_npu.config import BertConfig
from tfbert_npu.export.source import ExportSource, outputs_of
from tfbert_npu.onnx.running import Placing, Rows, random_inputs, run_onnx
from tfbert_npu.quantize.samples import (
    TEXTS,
    Inputs,
    text_inputs,
    with_positions,
    without_types,
)

_SINGLE = 6
_PAIRS = 3


def write_reference(
    directory: Path,
    source: ExportSource,
    lengths: Sequence[int],
    outputs: Sequence[str] | None,
    masked_positions: int | None,
    options: Placing,
) -> None:
    """Write `reference.npz` beside `model.onnx`, which computes it where there is no other reference.

    It holds single texts, pairs, and for every length one text that fills it.
    """
    inputs = _inputs(source, sorted(set(lengths)))
    if masked_positions is not None:
        inputs = with_positions([inputs], masked_positions)[0]
    if source.reference is not None:
        values = {name: np.asarray(value) for name, value in source.reference(inputs).items()}
    else:
        rows = Rows(source.state, [inputs], options)
        (values,) = rows.outputs(run_onnx(directory / "model.onnx", rows.fed))
    specs = outputs_of(source, outputs, masked_positions is not None)
    Reference.sampled(inputs, values, specs, source.weights_sha256).write(directory)


def _inputs(source: ExportSource, lengths: Sequence[int]) -> Inputs:
    """int32 [N, S] for S the longest length."""
    longest = lengths[-1]
    if source.tokenizer is None:
        # Rows of other batches fill every other one to the end.
        batches = [_padded(row, longest) for length in lengths for row in _random(source.config, length)]
    else:
        rows = text_inputs(source.tokenizer, TEXTS, (1, longest), _SINGLE, source.head.pairs)[: _SINGLE - 1]
        rows += [text_inputs(source.tokenizer, TEXTS[n:], (1, longest), 1, True)[0] for n in range(_PAIRS)]
        endless = [" ".join(TEXTS * (1 + longest // 100))]
        rows += [
            text_inputs(source.tokenizer, endless, (1, length), 2, source.head.pairs)[0] for length in lengths
        ]
        batches = [_padded(row, longest) for row in without_types(rows, source.config)]
    return {name: np.concatenate([batch[name] for batch in batches]) for name in batches[0]}


def _random(config: BertConfig, length: int) -> list[Inputs]:
    return random_inputs(config, (1, length), runs=4, seed=length)


def _padded(row: Inputs, length: int) -> Inputs:
    return {name: np.pad(value, ((0, 0), (0, length - value.shape[1]))) for name, value in row.items()}
