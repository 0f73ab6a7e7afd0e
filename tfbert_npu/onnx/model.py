"""A whole model as ONNX: which inputs and outputs it has, and the graph between them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import onnx

from tfbert_npu.config import BertConfig
from tfbert_npu.heads import ENCODER, ENCODER_OUTPUTS, HeadSpec, OutputSpec, is_head_tensor
from tfbert_npu.onnx import encoder, heads
from tfbert_npu.onnx.builder import Dim, GraphBuilder
from tfbert_npu.onnx.encoder import State

EmbeddingPlace = Literal["inside", "host"]


@dataclass(frozen=True)
class GraphOptions:
    """What an ONNX graph takes and gives."""

    outputs: tuple[str, ...] | None = None
    """Outputs in order: the head's logits, `pooled_output`, `sequence_output`, `encoder_outputs_0` and so
    on, one per layer, or `encoder_outputs` for all of these. None: the head's logits, or pooled and sequence
    output of a bare encoder."""
    batch: Dim = "batch"
    """Batch size, or the name of a dynamic one."""
    length: Dim = "length"
    """Sequence length in tokens, or the name of a dynamic one."""
    embeddings: EmbeddingPlace = "inside"
    """`"inside"`: inputs are int32 ids and mask [B, S]. `"host"`: inputs are the summed embeddings
    float32 [B, S, H] and the additive attention bias float32 [B, S], which `artifact.embeddings` computes."""
    packed: bool = False
    """Several texts in a row, see `artifact.packing`: embeddings on the host, a bias float32 [B, S, S]."""
    ffn_slices: int = 1
    """Parts in which the inner layer of each feed-forward block is computed."""
    batched: bool = False
    """Whether the batch is larger than 1, see `graph.encoder.first_token`; both forms hold for any batch."""
    masked_positions: Dim | None = None
    """Number P of positions at which `mlm_logits` are wanted: an input masked_lm_positions int32 [B, P] more,
    and logits [B, P, V]. None: logits at every position."""


def check_head(state: State, head: HeadSpec) -> None:
    """Refuse weights that lack the head's.

    Raises:
        ValueError: A tensor is missing.
    """
    lacking = [name for name in head.required if name not in state]
    if lacking:
        raise ValueError(f"the weights have no {head.name} head: {', '.join(lacking)} is missing")


def tensors_under(state: State, head: HeadSpec) -> dict[str, np.ndarray]:
    """Tensors of the encoder, its pooler and one head; the state of a checkpoint may hold others."""
    return {
        name: tensor
        for name, tensor in state.items()
        if name.startswith(head.prefixes) or not is_head_tensor(name)
    }


def output_specs(config: BertConfig, head: HeadSpec, masked_positions: bool = False) -> dict[str, OutputSpec]:
    """Every output that a graph with this head can give, its own first.

    Args:
        config: The architecture.
        head: The head.
        masked_positions: Whether `mlm_logits` are given at masked positions only.
    """
    layers = [f"encoder_outputs_{index}" for index in range(config.num_hidden_layers)]
    hidden = [OutputSpec(name, ("B", "S", "H")) for name in layers]
    own = [spec if masked_positions else spec.everywhere() for spec in head.outputs]
    return {spec.name: spec for spec in (*own, *ENCODER_OUTPUTS, *hidden)}


def output_names(config: BertConfig, head: HeadSpec, outputs: Sequence[str] | None) -> tuple[str, ...]:
    """The outputs asked for, `encoder_outputs` spelled out, checked.

    Raises:
        ValueError: One is unknown or asked for twice, or none is.
    """
    known = output_specs(config, head)
    layers = [name for name in known if name.startswith("encoder_outputs_")]
    allowed = (*known, "encoder_outputs")
    names: list[str] = []
    default = [spec.name for spec in head.outputs or ENCODER_OUTPUTS]
    for name in default if outputs is None else outputs:
        if name == "encoder_outputs":
            names += layers
        elif name in allowed:
            names.append(name)
        else:
            raise ValueError(f"output {name!r} is unknown for {head.name}; known are {', '.join(allowed)}")
    if not names or len(set(names)) < len(names):
        raise ValueError(f"outputs must name at least one and none twice, got {tuple(outputs or ())}")
    return tuple(names)


def write_graph(
    config: BertConfig, state: State, head: HeadSpec = ENCODER, options: GraphOptions | None = None
) -> onnx.ModelProto:
    """Write a model as ONNX.

    Args:
        config: The architecture.
        state: Its tensors, see `weights.names`; those of the head under Hugging Face's names.
        head: What stands on top of the encoder. Multiple choice takes choices as rows of the batch and
            gives logits [B, 1].
        options: Inputs and outputs.

    Raises:
        ValueError: An option is impossible, or the state lacks the head's tensors.
    """
    options = options or GraphOptions()
    names = output_names(config, head, options.outputs)
    check_head(state, head)
    if options.embeddings not in get_args(EmbeddingPlace):
        raise ValueError(f"embeddings must be one of {get_args(EmbeddingPlace)}, got {options.embeddings!r}")
    _check_length(config, options)
    if options.packed:
        names = _packed_outputs(head, options, names)
    batch, length, hidden_size = options.batch, options.length, config.hidden_size

    g = GraphBuilder(f"{config.model_type}_{head.name}")
    if options.embeddings == "host":
        like = embeddings = g.input("embeddings", np.float32, [batch, length, hidden_size])
        # Two dimensions: the vendor's runtimes take an input of four for an image, and transpose it.
        sizes = [batch, length, length] if options.packed else [batch, length]
        bias = g.input("attention_bias", np.float32, sizes)
        axes = g.constant("unsqueeze.axes", [1] if options.packed else [1, 2])
        bias = g.op("Unsqueeze", "attention_bias", bias, axes)
    else:
        wanted = ["input_word_ids", "input_mask"] + ["input_type_ids"] * bool(config.type_vocab_size)
        inputs = {name: g.input(name, np.int32, [batch, length]) for name in wanted}
        like = inputs["input_word_ids"]
        embeddings = encoder.embedding_sum(g, config, state, inputs)
        bias = encoder.attention_bias(g, inputs["input_mask"])
    if head.causal:
        bias = encoder.causal_bias(g, config, bias, like)
    positions = None
    if options.masked_positions is not None:
        positions = g.input("masked_lm_positions", np.int32, [batch, options.masked_positions])
    states = encoder.encoder_layers(g, config, state, embeddings, bias, options.ffn_slices)

    values = _output_values(g, config, state, head, names, states, positions, like, options.batched)
    named = _sizes(config, state, head, options)
    specs = output_specs(config, head, options.masked_positions is not None)
    for name in names:
        g.output(name, values[name], list(specs[name].shape(named)))
    return g.model()


def _packed_outputs(head: HeadSpec, options: GraphOptions, names: tuple[str, ...]) -> tuple[str, ...]:
    """The outputs where a row holds several texts; the host makes `pooled_output` of their first tokens."""
    if options.embeddings != "host" or options.masked_positions is not None:
        raise ValueError("packed texts need embeddings='host' and no masked_positions")
    alone = [spec.name for spec in head.outputs if not spec.everywhere().per_token]
    if alone or head.choices:
        raise ValueError(
            f"packed texts need an output for each token, and {head.name} gives one for each text; leave out "
            "packed, or export the encoder alone with head='encoder'"
        )
    kept = tuple(name for name in names if name != "pooled_output")
    return kept if head.outputs or "sequence_output" in kept else ("sequence_output", *kept)


def _output_values(
    g: GraphBuilder,
    config: BertConfig,
    state: State,
    head: HeadSpec,
    names: Sequence[str],
    states: Sequence[str],
    positions: str | None,
    like: str,
    batched: bool,
) -> dict[str, str]:
    last = states[-1]
    values = {f"encoder_outputs_{index}": value for index, value in enumerate(states)}
    values["sequence_output"] = last
    if "pooled_output" in names:
        values["pooled_output"] = encoder.pooled(g, config, state, last, batched)
    if "mlm_logits" in names:
        scored = last
        if positions is not None:
            scored = heads.at_positions(g, last, positions, like, config.max_position_embeddings)
        values["mlm_logits"] = heads.mlm_logits(g, config, state, scored)
    linear = [spec.name for spec in head.outputs if spec.name != "mlm_logits"]
    if set(linear) & set(names):
        given = heads.linear_outputs(g, config, state, head, last, batched, len(linear))
        values |= dict(zip(linear, given, strict=True))
    return values


def _sizes(config: BertConfig, state: State, head: HeadSpec, options: GraphOptions) -> dict[str, Dim]:
    sizes: dict[str, Dim] = {
        "B": options.batch,
        "S": options.length,
        "H": config.hidden_size,
        "V": config.vocab_size,
        "P": 0 if options.masked_positions is None else options.masked_positions,
    }
    for layer in head.layers:
        if layer.units == "L":
            sizes["L"] = len(state[f"{layer.tensor}.weight"])
    return sizes


def _check_length(config: BertConfig, options: GraphOptions) -> None:
    for name, value in (("batch", options.batch), ("length", options.length)):
        if isinstance(value, int) and value < 1:
            raise ValueError(f"{name} must be at least 1, got {value}")
    if isinstance(options.length, int) and options.length > config.max_position_embeddings:
        raise ValueError(
            f"length {options.length} is more than the model's max_position_embeddings "
            f"{config.max_position_embeddings}; choose a shorter one"
        )
