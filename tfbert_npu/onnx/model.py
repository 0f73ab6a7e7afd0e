"""A whole model as ONNX: which inputs and outputs it has, and the graph between them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import onnx

from tfbert_npu.config import BertConfig
from tfbert_npu.onnx import encoder, heads
from tfbert_npu.onnx.builder import Dim, GraphBuilder
from tfbert_npu.onnx.encoder import State

Head = Literal[
    "encoder",
    "masked_lm",
    "causal_lm",
    "pretraining",
    "next_sentence",
    "sequence_classification",
    "multiple_choice",
    "token_classification",
    "question_answering",
]
EmbeddingPlace = Literal["inside", "host"]

_ENCODER_OUTPUTS = ("pooled_output", "sequence_output")
_HEAD_OUTPUTS: dict[str, tuple[str, ...]] = {
    "encoder": (),
    "masked_lm": ("mlm_logits",),
    "causal_lm": ("mlm_logits",),
    "pretraining": ("mlm_logits", "nsp_logits"),
    "next_sentence": ("nsp_logits",),
    "sequence_classification": ("logits",),
    "multiple_choice": ("logits",),
    "token_classification": ("logits",),
    "question_answering": ("start_logits", "end_logits"),
}
_HEAD_TENSORS = {
    "encoder": (),
    "masked_lm": ("cls.predictions.transform.dense.weight", "cls.predictions.bias"),
    "causal_lm": ("cls.predictions.transform.dense.weight", "cls.predictions.bias"),
    "pretraining": ("cls.predictions.transform.dense.weight", "cls.seq_relationship.weight"),
    "next_sentence": ("cls.seq_relationship.weight",),
    "sequence_classification": ("classifier.weight",),
    "multiple_choice": ("classifier.weight",),
    "token_classification": ("classifier.weight",),
    "question_answering": ("qa_outputs.weight",),
}

_ANY_HEAD = ("cls.", "classifier.", "pre_classifier.", "qa_outputs.")
_HEAD_PREFIXES: dict[str, tuple[str, ...]] = {
    "encoder": (),
    "masked_lm": ("cls.predictions.",),
    "causal_lm": ("cls.predictions.",),
    "pretraining": ("cls.",),
    "next_sentence": ("cls.seq_relationship.",),
    "sequence_classification": ("classifier.", "pre_classifier."),
    "multiple_choice": ("classifier.", "pre_classifier."),
    "token_classification": ("classifier.",),
    "question_answering": ("qa_outputs.",),
}


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
    ffn_slices: int = 1
    """Parts in which the inner layer of each feed-forward block is computed."""
    batched: bool = False
    """Whether the batch is larger than 1, see `graph.encoder.first_token`; both forms hold for any batch."""
    masked_positions: Dim | None = None
    """Number P of positions at which `mlm_logits` are wanted: an input masked_lm_positions int32 [B, P] more,
    and logits [B, P, V]. None: logits at every position."""


def head_outputs(head: Head) -> tuple[str, ...]:
    """Names of a head's own outputs, in their order."""
    if head not in get_args(Head):
        raise ValueError(f"head must be one of {get_args(Head)}, got {head!r}")
    return _HEAD_OUTPUTS[head]


def check_head(state: State, head: Head) -> None:
    """Refuse weights that lack the head's.

    Raises:
        ValueError: A tensor is missing.
    """
    lacking = [name for name in _HEAD_TENSORS[head] if name not in state]
    if lacking:
        raise ValueError(f"the weights have no {head} head: {', '.join(lacking)} is missing")


def tensors_under(state: State, head: Head) -> dict[str, np.ndarray]:
    """Tensors of the encoder, its pooler and one head; the state of a checkpoint may hold others."""
    own = _HEAD_PREFIXES[head]
    return {
        name: tensor
        for name, tensor in state.items()
        if name.startswith(own) or not name.startswith(_ANY_HEAD)
    }


def output_names(config: BertConfig, head: Head, outputs: Sequence[str] | None) -> tuple[str, ...]:
    """The outputs asked for, `encoder_outputs` spelled out, checked.

    Raises:
        ValueError: One is unknown or asked for twice, or none is.
    """
    own = head_outputs(head)
    layers = [f"encoder_outputs_{index}" for index in range(config.num_hidden_layers)]
    allowed = (*own, *_ENCODER_OUTPUTS, "encoder_outputs", *layers)
    names: list[str] = []
    for name in outputs if outputs is not None else own or _ENCODER_OUTPUTS:
        if name == "encoder_outputs":
            names += layers
        elif name in allowed:
            names.append(name)
        else:
            raise ValueError(f"output {name!r} is unknown for {head}; known are {', '.join(allowed)}")
    if not names or len(set(names)) < len(names):
        raise ValueError(f"outputs must name at least one and none twice, got {tuple(outputs or ())}")
    return tuple(names)


def write_graph(
    config: BertConfig, state: State, head: Head = "encoder", options: GraphOptions | None = None
) -> onnx.ModelProto:
    """Write a model as ONNX.

    Args:
        config: The architecture.
        state: Its tensors, see `weights.names`; those of the head under Hugging Face's names.
        head: What stands on top of the encoder. `"multiple_choice"` takes choices as rows of the batch and
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
    batch, length, hidden_size = options.batch, options.length, config.hidden_size

    g = GraphBuilder(f"{config.model_type}_{head}")
    if options.embeddings == "host":
        like = embeddings = g.input("embeddings", np.float32, [batch, length, hidden_size])
        # Two dimensions: the vendor's runtimes take an input of four for an image, and transpose it.
        bias = g.input("attention_bias", np.float32, [batch, length])
        bias = g.op("Unsqueeze", "attention_bias", bias, g.constant("unsqueeze.axes", [1, 2]))
    else:
        wanted = ["input_word_ids", "input_mask"] + ["input_type_ids"] * bool(config.type_vocab_size)
        inputs = {name: g.input(name, np.int32, [batch, length]) for name in wanted}
        like = inputs["input_word_ids"]
        embeddings = encoder.embedding_sum(g, config, state, inputs)
        bias = encoder.attention_bias(g, inputs["input_mask"])
    if head == "causal_lm":
        bias = encoder.causal_bias(g, config, bias, like)
    positions = None
    if options.masked_positions is not None:
        positions = g.input("masked_lm_positions", np.int32, [batch, options.masked_positions])
    states = encoder.encoder_layers(g, config, state, embeddings, bias, options.ffn_slices)

    values = _output_values(g, config, state, head, names, states, positions, like, options.batched)
    shapes = _output_shapes(config, state, options)
    for name in names:
        g.output(name, values[name], shapes(name, head))
    return g.model()


def _output_values(
    g: GraphBuilder,
    config: BertConfig,
    state: State,
    head: Head,
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
    if "nsp_logits" in names:
        values["nsp_logits"] = heads.nsp_logits(g, config, state, last, batched)
    if "logits" in names and head == "token_classification":
        values["logits"] = heads.token_logits(g, state, last)
    elif "logits" in names:
        values["logits"] = heads.sequence_logits(g, config, state, last, batched)
    if "start_logits" in names or "end_logits" in names:
        values["start_logits"], values["end_logits"] = heads.span_logits(g, state, last)
    return values


def _output_shapes(
    config: BertConfig, state: State, options: GraphOptions
) -> Callable[[str, Head], list[Dim]]:
    batch, length = options.batch, options.length

    def shape(name: str, head: Head) -> list[Dim]:
        if name == "pooled_output":
            return [batch, config.hidden_size]
        if name == "mlm_logits":
            scored = length if options.masked_positions is None else options.masked_positions
            return [batch, scored, config.vocab_size]
        if name == "nsp_logits":
            return [batch, 2]
        if name == "logits":
            labels = state["classifier.weight"].shape[0]
            return [batch, length, labels] if head == "token_classification" else [batch, labels]
        if name in ("start_logits", "end_logits"):
            return [batch, length]
        return [batch, length, config.hidden_size]

    return shape


def _check_length(config: BertConfig, options: GraphOptions) -> None:
    for name, value in (("batch", options.batch), ("length", options.length)):
        if isinstance(value, int) and value < 1:
            raise ValueError(f"{name} must be at least 1, got {value}")
    if isinstance(options.length, int) and options.length > config.max_position_embeddings:
        raise ValueError(
            f"length {options.length} is more than the model's max_position_embeddings "
            f"{config.max_position_embeddings}; choose a shorter one"
        )
