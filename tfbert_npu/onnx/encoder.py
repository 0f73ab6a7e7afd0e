"""The encoder as ONNX nodes (Devlin et al. 2018, post-norm), in the form that rknn-toolkit2 fuses.

The compiler makes one exSDPAttention of scaled product, mask, softmax and product; one exNorm of
LayerNormalization; one ConvExGelu of a MatMul, its bias and a GELU spelled out as Div, Erf, Add, Mul, Mul.
A LayerNormalization spelled out as ReduceMean and Sqrt, or a GELU of another form, stays unfused, and its
Div and Erf run on the CPU.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
from onnx import TensorProto

from tfbert_npu.artifact.embeddings import MASK_BIAS
from tfbert_npu.config import BertConfig
from tfbert_npu.onnx.builder import GraphBuilder

State = Mapping[str, np.ndarray]


def embedding_sum(g: GraphBuilder, config: BertConfig, state: State, inputs: Mapping[str, str]) -> str:
    """Sum of word, position and token type embeddings, [B, S, H], from int32 ids [B, S]."""
    scope = "embeddings"
    ids = inputs["input_word_ids"]
    positions = state["embeddings.position_embeddings.weight"][None]
    name = "embeddings.token_type_embeddings.weight"
    table = state[name] if config.type_vocab_size else None
    levels = "embeddings.word_embeddings.scale"
    if levels in state:  # `export.quantize`: the tables are going to be int8, with one range each
        even = g.constant(f"{levels}.table", state["embeddings.word_embeddings.weight"] / state[levels])
        words = scaled(g, state, levels, g.op("Gather", f"{scope}/words", even, ids, axis=0))
        if table is not None:  # the first type, which most texts have throughout, becomes an exact 0
            positions, table = positions + table[0], table - table[0]
    else:
        words = g.op("Gather", f"{scope}/words", word_table(g, state), ids, axis=0)
    position = leading(g, "embeddings.position_embeddings.weight", positions, ids, axes=[1])
    if table is not None:
        types = g.op("Gather", f"{scope}/types", g.constant(name, table), inputs["input_type_ids"], axis=0)
        words = g.op("Add", f"{scope}/types", words, types)
    return g.op("Add", f"{scope}/positions", words, position)


def word_table(g: GraphBuilder, state: State) -> str:
    """The word embedding table [V, H]."""
    name = "embeddings.word_embeddings.weight"
    return g.constant(name, state[name])


def leading(g: GraphBuilder, name: str, table: np.ndarray, like: str, axes: list[int]) -> str:
    """The first S entries of `table` along each of `axes`, S being the length of the input `like` [B, S].

    With a dynamic length it is a Slice up to the input's Shape, which the compiler folds for every shape that
    it compiles.
    """
    length = g.shape_of(like)[1]
    if isinstance(length, int):
        cut = tuple(slice(length) if axis in axes else slice(None) for axis in range(table.ndim))
        return g.constant(name, table[cut])
    end = g.op("Shape", name, like, start=1, end=2)
    if len(axes) > 1:
        end = g.op("Concat", name, *[end] * len(axes), axis=0)
    start = g.constant(f"slice.start.{len(axes)}", [0] * len(axes))
    axis = g.constant("slice.axes." + ".".join(map(str, axes)), axes)
    return g.op("Slice", name, g.constant(name, table), start, end, axis)


def attention_bias(g: GraphBuilder, mask: str) -> str:
    """Additive mask [B, 1, 1, S]: 0 where the int32 mask [B, S] is 1, `MASK_BIAS` where it is 0."""
    scope = "attention_bias"
    bits = g.op("Cast", scope, mask, to=TensorProto.FLOAT)
    bits = g.op("Unsqueeze", scope, bits, g.constant("unsqueeze.axes", [1, 2]))
    padding = g.op("Sub", scope, g.constant("one", 1.0), bits)
    return g.op("Mul", scope, padding, g.constant("mask_bias", MASK_BIAS))


def causal_bias(g: GraphBuilder, config: BertConfig, bias: str, like: str) -> str:
    """The additive mask with everything after a token's own place masked as well, [B, 1, S, S]."""
    size = config.max_position_embeddings
    future = np.triu(np.full((size, size), MASK_BIAS, np.float32), 1)[None, None]
    # Minimum, not a sum: two maskings must not add up to what float16 cannot hold.
    return g.op("Min", "causal_bias", bias, leading(g, "causal_bias", future, like, axes=[2, 3]))


def encoder_layers(
    g: GraphBuilder, config: BertConfig, state: State, embeddings: str, bias: str, ffn_slices: int = 1
) -> list[str]:
    """LayerNorm of the summed embeddings and the stack of layers; the hidden states after each layer."""
    hidden = layer_norm(g, config, state, "embeddings.LayerNorm", embeddings)
    states = []
    for layer in range(config.num_hidden_layers):
        name = f"encoder.layer.{layer}"
        attended = self_attention(g, config, state, f"{name}.attention", hidden, bias)
        attended = residual(g, state, f"{name}.attention", attended, hidden)
        attended = layer_norm(g, config, state, f"{name}.attention.output.LayerNorm", attended)
        hidden = feed_forward(g, config, state, name, attended, ffn_slices)
        hidden = residual(g, state, name, hidden, attended)
        hidden = layer_norm(g, config, state, f"{name}.output.LayerNorm", hidden)
        states.append(restored(g, state, f"{name}.output.LayerNorm", hidden))
    return states


def residual(g: GraphBuilder, state: State, name: str, branch: str, hidden: str) -> str:
    """branch + hidden, between the scales that `export.quantize` may have put into the state."""
    hidden = scaled(g, state, f"{name}.residual.scale", hidden)
    total = g.op("Add", f"{name}.residual", branch, hidden)
    return scaled(g, state, f"{name}.residual.unscale", total)


def restored(g: GraphBuilder, state: State, norm: str, x: str) -> str:
    """The hidden state itself, of a LayerNorm's output that `export.quantize` may have scaled and shifted."""
    x = scaled(g, state, f"{norm}.scale", x)
    if f"{norm}.shift" not in state:
        return x
    return g.op("Add", f"{norm}.shift", x, g.constant(f"{norm}.shift", state[f"{norm}.shift"]))


def scaled(g: GraphBuilder, state: State, name: str, x: str) -> str:
    """x times the vector `name` of the state along the last axis, or x if there is none."""
    if name not in state:
        return x
    return g.op("Mul", name, x, g.constant(name, state[name]))


def feed_forward(
    g: GraphBuilder, config: BertConfig, state: State, name: str, x: str, slices: int = 1
) -> str:
    """W2 act(W1 x + b1) + b2, [B, S, H] -> [B, S, H].

    With `slices` above 1 the inner layer is computed in that many parts, whose contributions are added. The
    compiler splits a product whose input does not fit its buffer, at a width that depends on the length; it
    then stores that product's weights once more for each length. Parts that fit at every length are shared.
    """
    up, down = f"{name}.intermediate.dense", f"{name}.output.dense"
    if slices == 1:
        inner = activation(g, config, f"{name}.intermediate", linear(g, state, up, x))
        return side_neurons(g, config, state, name, x, linear(g, state, down, inner))
    if config.intermediate_size % slices:
        raise ValueError(f"ffn_slices {slices} does not divide intermediate_size {config.intermediate_size}")
    width = config.intermediate_size // slices
    parts = []
    for index in range(slices):
        part = slice(index * width, (index + 1) * width)
        cut = {
            f"{up}.{index}.weight": state[f"{up}.weight"][part],
            f"{up}.{index}.bias": state[f"{up}.bias"][part],
        }
        inner = activation(g, config, f"{name}.intermediate.{index}", linear(g, cut, f"{up}.{index}", x))
        kernel = np.ascontiguousarray(state[f"{down}.weight"][:, part].T)
        parts.append(g.op("MatMul", f"{down}.{index}", inner, g.constant(f"{down}.{index}.kernel", kernel)))
    parts[0] = g.op("Add", f"{down}.bias", parts[0], g.constant(f"{down}.bias", state[f"{down}.bias"]))
    # Added in pairs: rknn-toolkit2 2.5.0 fails on a chain of five sums (benchmarks/graph_forms.py).
    while len(parts) > 1:
        pairs = [parts[index : index + 2] for index in range(0, len(parts), 2)]
        parts = [g.op("Add", f"{down}.sum", *pair) if len(pair) == 2 else pair[0] for pair in pairs]
    return side_neurons(g, config, state, name, x, parts[0])


def side_neurons(g: GraphBuilder, config: BertConfig, state: State, name: str, x: str, main: str) -> str:
    """main plus what the neurons contribute that `export.quantize` took out of it, or main if there are none.

    They are a small feed-forward block of their own, which stays in float16 where the large one is int8.
    """
    side = f"{name}.side"
    if f"{side}.up.weight" not in state:
        return main
    inner = activation(g, config, f"{side}.act", linear(g, state, f"{side}.up", x))
    kernel = np.ascontiguousarray(state[f"{side}.down.weight"].T)
    product = g.op("MatMul", f"{side}.down", inner, g.constant(f"{side}.down.kernel", kernel))
    return g.op("Add", f"{side}.sum", main, product)


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


def pooled(g: GraphBuilder, config: BertConfig, state: State, hidden: str, batched: bool = False) -> str:
    """tanh of the pooler's dense layer over the first token, [B, S, H] -> [B, H].

    Without a pooler in the state it is the first token's hidden state itself, as `BertEncoder` has it.
    """
    first = first_token(g, config, "pooler", hidden, batched)
    if "pooler.dense.weight" not in state:
        return first
    return g.op("Tanh", "pooler", linear(g, state, "pooler.dense", first))


def first_token(g: GraphBuilder, config: BertConfig, scope: str, hidden: str, batched: bool = False) -> str:
    """Hidden state of the first token, [B, S, H] -> [B, H].

    A Gather along the length is cheapest for one text, but makes the compiler transpose a whole batch on the
    CPU. With `batched` it is cut from each row laid flat instead, one operator more, all on the NPU.
    """
    name = f"{scope}/first_token"
    if not batched:
        return g.op("Gather", name, hidden, g.constant("first", np.int64(0)), axis=1)
    flat = g.op("Reshape", name, hidden, g.constant("flat", [0, -1]))
    start, end = g.constant("slice.start.1", [0]), g.constant("slice.end.hidden", [config.hidden_size])
    return g.op("Slice", name, flat, start, end, g.constant("slice.axes.1", [1]))


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
