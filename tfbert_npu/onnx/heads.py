"""Task heads as ONNX nodes, from the head's tensors under Hugging Face's names."""

from __future__ import annotations

import itertools

import numpy as np
from onnx import TensorProto

from tfbert_npu.config import BertConfig
from tfbert_npu.heads import HeadSpec
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


def linear_outputs(
    g: GraphBuilder,
    config: BertConfig,
    state: State,
    head: HeadSpec,
    hidden: str,
    batched: bool,
    count: int,
) -> list[str]:
    """A head's linear layers over the pooled output or over every token.

    Args:
        g: The graph.
        config: The architecture.
        state: The tensors.
        head: Which layers.
        hidden: Hidden states [B, S, H].
        batched: See `encoder.first_token`.
        count: Number of outputs; more than one share the last layer, a column each.

    Returns:
        The outputs: [B, units] or [B, S, units], or `count` of [B, S].
    """
    distilbert = config.model_type == "distilbert"
    layers = head.layers_of(distilbert)
    x = hidden
    if head.pooler:
        # DistilBERT's first layer stands in the pooler's place.
        own = any(layer.distilbert_only for layer in layers)
        x = (
            first_token(g, config, layers[0].tensor, hidden, batched)
            if own
            else pooled(g, config, state, hidden, batched)
        )
    for layer in layers:
        x = linear(g, state, layer.tensor, x)
        if layer.activation is not None:
            x = g.op(layer.activation.capitalize(), layer.tensor, x)
    if count == 1:
        return [x]
    scope, columns = layers[-1].tensor, g.ops("Split", layers[-1].tensor, [x], count, axis=2)
    last = g.constant("squeeze.last", [2])
    return [
        g.op("Squeeze", f"{scope}/{spec.name.partition('_')[0]}", column, last)
        for spec, column in zip(head.outputs, columns, strict=True)
    ]
