"""The encoder as ONNX nodes (Devlin et al. 2018, post-norm), in the form that rknn-toolkit2 fuses.

The compiler makes one exSDPAttention of scaled product, mask, softmax and product; one exNorm of
LayerNormalization; one ConvExGelu of a MatMul, its bias and a GELU spelled out as Div, Erf, Add, Mul, Mul.
A LayerNormalization spelled out as ReduceMean and Sqrt, or a GELU of another form, stays unfused, and its
Div and Erf run on the CPU.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Literal

import numpy as np

from tfbert_npu.config import BertConfig
from tfbert_npu.export.graph.builder import Dim, GraphBuilder

State = Mapping[str, np.ndarray]
EmbeddingPlace = Literal["inside", "host"]

MASK_BIAS = -1e4
"""Added to the attention scores of padding: exp(-1e4) is 0 in float16, and -1e4 x 0 is finite there, which
-1e5 is not (it overflows to -inf, and -inf x 0 is NaN on the NPU)."""


def embedding_sum(g: GraphBuilder, config: BertConfig, state: State, inputs: Mapping[str, str]) -> str:
    """Sum of word, position and token type embeddings, [B, S, H], from int32 ids [B, S]."""
    scope = "embeddings"
    table = g.constant("embeddings.word_embeddings.weight", state["embeddings.word_embeddings.weight"])
    words = g.op("Gather", f"{scope}/words", table, inputs["input_word_ids"], axis=0)
    length = _static_length(g, inputs["input_word_ids"])
    positions = state["embeddings.position_embeddings.weight"]
    if length is not None:
        position = g.constant("embeddings.positions", positions[None, :length])
    else:
        table = g.constant("embeddings.position_embeddings.weight", positions[None])
        shape = g.op("Shape", f"{scope}/positions", inputs["input_word_ids"], start=1, end=2)
        position = g.op(
            "Slice",
            f"{scope}/positions",
            table,
            g.constant("slice.start", [0]),
            shape,
            g.constant("slice.axis", [1]),
        )
    if config.type_vocab_size == 0:
        return g.op("Add", f"{scope}/positions", words, position)
    table = g.constant(
        "embeddings.token_type_embeddings.weight", state["embeddings.token_type_embeddings.weight"]
    )
    types = g.op("Gather", f"{scope}/types", table, inputs["input_type_ids"], axis=0)
    words = g.op("Add", f"{scope}/types", words, types)
    return g.op("Add", f"{scope}/positions", words, position)


def attention_bias(g: GraphBuilder, mask: str) -> str:
    """Additive mask [B, 1, 1, S]: 0 where the int32 or float32 mask [B, S] is 1, `MASK_BIAS` where it is 0."""
    scope = "attention_bias"
    if not g.is_float(mask):
        mask = g.op("Cast", scope, mask, to=1)
    mask = g.op("Unsqueeze", scope, mask, g.constant("unsqueeze.axes", [1, 2]))
    mask = g.op("Sub", scope, g.constant("one", 1.0), mask)
    return g.op("Mul", scope, mask, g.constant("mask_bias", MASK_BIAS))


def encoder_layers(
    g: GraphBuilder, config: BertConfig, state: State, embeddings: str, bias: str
) -> list[str]:
    """LayerNorm of the summed embeddings and the stack of layers; the hidden states after each layer."""
    hidden = layer_norm(g, config, state, "embeddings.LayerNorm", embeddings)
    states = []
    for layer in range(config.num_hidden_layers):
        name = f"encoder.layer.{layer}"
        attended = self_attention(g, config, state, f"{name}.attention", hidden, bias)
        attended = g.op("Add", f"{name}.attention.residual", attended, hidden)
        attended = layer_norm(g, config, state, f"{name}.attention.output.LayerNorm", attended)
        inner = linear(g, state, f"{name}.intermediate.dense", attended)
        inner = activation(g, config, f"{name}.intermediate", inner)
        hidden = linear(g, state, f"{name}.output.dense", inner)
        hidden = g.op("Add", f"{name}.residual", hidden, attended)
        hidden = layer_norm(g, config, state, f"{name}.output.LayerNorm", hidden)
        states.append(hidden)
    return states


def self_attention(
    g: GraphBuilder, config: BertConfig, state: State, name: str, hidden: str, bias: str
) -> str:
    """Multi-head scaled dot-product attention and its output projection, [B, S, H] -> [B, S, H]."""
    # 0 copies the input's dimension: such a Reshape holds for every shape of a dynamic file.
    split = g.constant("split_heads", [0, 0, config.num_attention_heads, config.head_size])
    merge = g.constant("merge_heads", [0, 0, config.hidden_size])

    def heads(part: str, perm: list[int]) -> str:
        projected = linear(g, state, f"{name}.self.{part}", hidden)
        projected = g.op("Reshape", f"{name}.self.{part}", projected, split)
        return g.op("Transpose", f"{name}.self.{part}", projected, perm=perm)

    query, key, value = heads("query", [0, 2, 1, 3]), heads("key", [0, 2, 3, 1]), heads("value", [0, 2, 1, 3])
    scores = g.op("MatMul", f"{name}.self.scores", query, key)
    scores = g.op("Div", f"{name}.self.scores", scores, g.constant("sqrt_head", math.sqrt(config.head_size)))
    scores = g.op("Add", f"{name}.self.scores", scores, bias)
    weights = g.op("Softmax", f"{name}.self.weights", scores, axis=-1)
    context = g.op("MatMul", f"{name}.self.context", weights, value)
    context = g.op("Transpose", f"{name}.self.context", context, perm=[0, 2, 1, 3])
    context = g.op("Reshape", f"{name}.self.context", context, merge)
    return linear(g, state, f"{name}.output.dense", context)


def pooler(g: GraphBuilder, state: State, hidden: str) -> str:
    """tanh of a dense layer over the first token, [B, S, H] -> [B, H]."""
    first = first_token(g, "pooler", hidden)
    return g.op("Tanh", "pooler", linear(g, state, "pooler.dense", first))


def first_token(g: GraphBuilder, scope: str, hidden: str) -> str:
    """Hidden state of the first token, [B, S, H] -> [B, H]."""
    return g.op("Gather", f"{scope}/first_token", hidden, g.constant("first", np.int64(0)), axis=1)


def linear(g: GraphBuilder, state: State, name: str, x: str) -> str:
    """x W^T + b over the last axis; a state holds W as [out, in]."""
    kernel = g.constant(f"{name}.kernel", np.ascontiguousarray(state[f"{name}.weight"].T))
    product = g.op("MatMul", name, x, kernel)
    return g.op("Add", name, product, g.constant(f"{name}.bias", state[f"{name}.bias"]))


def layer_norm(g: GraphBuilder, config: BertConfig, state: State, name: str, x: str) -> str:
    """LayerNorm over the last axis (Ba et al. 2016)."""
    gamma = g.constant(f"{name}.weight", state[f"{name}.weight"])
    beta = g.constant(f"{name}.bias", state[f"{name}.bias"])
    return g.op("LayerNormalization", name, x, gamma, beta, axis=-1, epsilon=config.layer_norm_eps)


def activation(g: GraphBuilder, config: BertConfig, scope: str, x: str) -> str:
    """The configuration's `hidden_act`, elementwise."""
    kind = config.hidden_act
    if kind == "gelu":
        erf = g.op("Erf", scope, g.op("Div", scope, x, g.constant("sqrt_2", math.sqrt(2.0))))
        product = g.op("Mul", scope, x, g.op("Add", scope, erf, g.constant("one", 1.0)))
        return g.op("Mul", scope, product, g.constant("half", 0.5))
    if kind == "gelu_tanh":
        cube = g.op("Mul", scope, g.op("Mul", scope, x, x), x)
        inner = g.op("Add", scope, x, g.op("Mul", scope, cube, g.constant("gelu_cubic", 0.044715)))
        inner = g.op("Mul", scope, inner, g.constant("sqrt_2_over_pi", math.sqrt(2.0 / math.pi)))
        gate = g.op("Add", scope, g.op("Tanh", scope, inner), g.constant("one", 1.0))
        return g.op("Mul", scope, g.op("Mul", scope, x, gate), g.constant("half", 0.5))
    if kind == "relu":
        return g.op("Relu", scope, x)
    if kind == "silu":
        return g.op("Mul", scope, x, g.op("Sigmoid", scope, x))
    if kind == "tanh":
        return g.op("Tanh", scope, x)
    return x


def _static_length(g: GraphBuilder, ids: str) -> Dim | None:
    length = g.shape_of(ids)[1]
    return length if isinstance(length, int) else None
