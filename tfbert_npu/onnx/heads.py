"""Task heads as ONNX nodes, from the head's tensors under Hugging Face's names."""

from __future__ import annotations

import itertools

import numpy as np
from onnx import TensorProto

from tfbert_npu.config import BertConfig
from tfbert_npu.onnx.builder import GraphBuilder
from tfbert_npu.onnx.encoder import (
    State,
    activation,
    first_token,
    layer_norm,
    leading,
    linear,
    pooled,
    word_table,
)

_WIDEST = 8192
"""Channels of the widest tensor that the NPU transposes; a wider one goes to the CPU."""


def mlm_logits(g: GraphBuilder, config: BertConfig, state: State, hidden: str) -> str:
    """Scores over the vocabulary, [B, P, H] -> [B, P, V], with the word embedding table as output matrix."""
    name = "cls.predictions"
    x = linear(g, state, f"{name}.transform.dense", hidden)
    x = activation(g, config, f"{name}.transform", x)
    x = layer_norm(g, config, state, f"{name}.transform.LayerNorm", x)
    # The transposed table is a constant; the graph transposes it so that the file holds it once.
    kernel = g.op("Transpose", f"{name}.decoder", word_table(g, state), perm=[1, 0])
    parts = -(-config.vocab_size // _WIDEST)
    edges = [min(index * _WIDEST, config.vocab_size) for index in range(parts + 1)]
    scores = []
    for index, (start, end) in enumerate(itertools.pairwise(edges)):
        scope = f"{name}.decoder.{index}"
        columns = kernel
        if parts > 1:
            columns = g.op(
                "Slice",
                scope,
                kernel,
                g.constant(f"{scope}.start", [start]),
                g.constant(f"{scope}.end", [end]),
                g.constant("slice.axes.1", [1]),
            )
        bias = g.constant(f"{name}.bias.{index}", state[f"{name}.bias"][start:end])
        scores.append(g.op("Add", scope, g.op("MatMul", scope, x, columns), bias))
    return scores[0] if parts == 1 else g.op("Concat", f"{name}.decoder", *scores, axis=2)


def at_positions(g: GraphBuilder, hidden: str, positions: str, like: str, most: int) -> str:
    """Hidden states at int32 positions [B, P], [B, S, H] -> [B, P, H], as a product with one-hot rows.

    A product runs on the NPU; a gather along the sequence does not.

    Args:
        g: The graph.
        hidden: Hidden states [B, S, H].
        positions: The positions.
        like: Graph input [B, S, ...] that has the length S.
        most: Longest possible S.
    """
    scope = "masked_positions"
    numbers = leading(g, scope, np.arange(most, dtype=np.float32)[None, None], like, axes=[2])
    wanted = g.op("Cast", scope, positions, to=TensorProto.FLOAT)
    wanted = g.op("Unsqueeze", scope, wanted, g.constant("unsqueeze.last", [2]))
    # max(0, 1 - |i - p|) is the one-hot row of a whole number p; Equal and OneHot would run on the CPU.
    distance = g.op("Abs", scope, g.op("Sub", scope, numbers, wanted))
    rows = g.op("Relu", scope, g.op("Sub", scope, g.constant("one", 1.0), distance))
    return g.op("MatMul", scope, rows, hidden)


def nsp_logits(g: GraphBuilder, config: BertConfig, state: State, hidden: str, batched: bool) -> str:
    """Scores of "is the next sentence" and "is not", [B, S, H] -> [B, 2]."""
    return linear(g, state, "cls.seq_relationship", pooled(g, config, state, hidden, batched))


def sequence_logits(g: GraphBuilder, config: BertConfig, state: State, hidden: str, batched: bool) -> str:
    """Scores over labels from the pooled output, or DistilBERT's pre_classifier; [B, S, H] -> [B, labels]."""
    if "pre_classifier.weight" in state:
        first = first_token(g, config, "pre_classifier", hidden, batched)
        x = g.op("Relu", "pre_classifier", linear(g, state, "pre_classifier", first))
    else:
        x = pooled(g, config, state, hidden, batched)
    return linear(g, state, "classifier", x)


def token_logits(g: GraphBuilder, state: State, hidden: str) -> str:
    """Scores over labels for every token, [B, S, H] -> [B, S, labels]."""
    return linear(g, state, "classifier", hidden)


def span_logits(g: GraphBuilder, state: State, hidden: str) -> tuple[str, str]:
    """Scores of an answer's start and end for every token, [B, S, H] -> two of [B, S]."""
    both = linear(g, state, "qa_outputs", hidden)
    start, end = g.ops("Split", "qa_outputs", [both], 2, axis=2)
    last = g.constant("squeeze.last", [2])
    return g.op("Squeeze", "qa_outputs/start", start, last), g.op("Squeeze", "qa_outputs/end", end, last)
