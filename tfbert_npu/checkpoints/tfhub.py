"""TF-Hub's BERT SavedModels, read from variables, assets and graph definitions.

Contract: tensorflow/models, official/nlp/tools/export_tfhub_lib.py, which made the published `bert_en_*/3`
and `/4`, `small_bert` and `experts`; and its ancestors, which made `/1` and `/2`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from tfbert_npu.checkpoints.checkpoint import Checkpoint
from tfbert_npu.checkpoints.names import Row, encoder_rows, head_rows, mlm_rows, pooler_rows
from tfbert_npu.checkpoints.saved_model import SavedModel, layer_numbers
from tfbert_npu.checkpoints.tfhub_graph import TRUST, EncoderGraph
from tfbert_npu.config import BertConfig
from tfbert_npu.errors import CheckpointError
from tfbert_npu.heads import heads

Kind = Literal["encoder", "preprocessor", "other"]

# Name of the Asset by which `export_saved_model` carries the configuration.
CONFIG_ASSET = "config_file"
# Of the one that carries the settings of an encoder's or a head's preprocessor.
PREPROCESSOR_ASSET = "preprocessor_file"

# Names of older exports, rewritten to the newest. The first BERTs on TF-Hub came from a model class whose
# scope was `bert_model`; later ones may have a scope of the encoder network's name in front.
_RENAMES = (
    (r":0$", ""),
    (
        r"^(.*?/)?(?=(word_embeddings|position_embedding|type_embeddings|embeddings|embedding_postprocessor"
        r"|embedding_projection|pooler_transform)/)",
        "",
    ),
    (r"^(.*?/)?(transformer|encoder)/(?=layer_\d+/)", "transformer/"),
    (r"^(.*?/)?cls/predictions/", "bert/cls/predictions/"),
    (r"^embedding_postprocessor/type_embeddings$", "type_embeddings/embeddings"),
    (r"^embedding_postprocessor/position_embeddings$", "position_embedding/embeddings"),
    (r"^position_embedding/position_embeddings$", "position_embedding/embeddings"),
    (r"^embedding_postprocessor/layer_norm/", "embeddings/layer_norm/"),
    (r"/self_attention_output/", "/self_attention/attention_output/"),
    (r"^(bert/cls/predictions)/output_bias$", r"\1/output_bias/bias"),
)


def kind_of(model: SavedModel) -> Kind:
    """What a SavedModel is, by the shape of its root object."""
    if model.child(0, "bert_pack_inputs") is not None and model.child(0, "tokenize") is not None:
        return "preprocessor"
    if model.child(0, CONFIG_ASSET) is not None:
        return "encoder"
    names = {_canonical(n.variable.name) for n in model.nodes if n.WhichOneof("kind") == "variable"}
    if {"word_embeddings/embeddings", "position_embedding/embeddings"} <= names:
        return "encoder"
    return "other"


def read_encoder(model: SavedModel) -> Checkpoint:
    """An encoder's configuration and weights, its MLM head where it has one.

    Sizes are those of the variables; activation, epsilon and dropout rates are read off the graph.

    Raises:
        CheckpointError: A file is damaged, or the model is another architecture than BERT; says which part.
    """
    if model.child(0, CONFIG_ASSET) is not None:
        return _read_own_export(model)
    tensors = {_canonical(name): value for name, value in model.variables().items()}
    config = _config(model, tensors)
    state = {}
    for row in (*encoder_rows(config), *pooler_rows(config), *mlm_rows()):
        if row.tfhub in tensors:
            state[row.name] = _plain(tensors.pop(row.tfhub), row, config)
    lower_case = tensors.pop("Variable", tensors.pop("do_lower_case", None))
    unknown = sorted(name for name in tensors if not name.startswith("seed_generator"))
    if unknown:
        raise CheckpointError(
            f"{model.directory} holds variables that BERT does not have ({', '.join(unknown[:6])})", TRUST
        )
    return Checkpoint(
        config,
        state,
        vocabulary=model.asset("vocab_file"),
        lower_case=None if lower_case is None else bool(lower_case),
    )


def _read_own_export(model: SavedModel) -> Checkpoint:
    """What `export_saved_model` wrote: the configuration is an asset, variables have our layers' names."""
    path = model.asset(CONFIG_ASSET)
    if path is None:
        raise CheckpointError(f"{model.directory} has a {CONFIG_ASSET} that is no file", "export it again")
    config = BertConfig.from_json(path, source="huggingface")
    tensors = model.variables()
    by_suffix = {_own_suffix(name): value for name, value in tensors.items()}
    state = {}
    head_variables = [row for head in heads() for layer in head.layers for row in head_rows(layer)]
    for row in (*encoder_rows(config), *pooler_rows(config), *mlm_rows(), *head_variables):
        suffix = re.sub(r"^layers\.(\d+)", r"layer_\1", row.attribute).replace(".", "/")
        if suffix in by_suffix:
            state[row.name] = _plain(by_suffix[suffix], row, config)
    lower_case = tensors.get("do_lower_case")
    return Checkpoint(
        config,
        state,
        vocabulary=model.asset("vocab_file"),
        lower_case=None if lower_case is None else bool(lower_case),
    )


def _own_suffix(name: str) -> str:
    layers = "|".join({layer.attribute for head in heads() for layer in head.layers})
    return re.sub(rf"^(.*?/)?(?=(layer_\d+|embeddings|pooler|mlm_head|{layers})/)", "", name, count=1)


@dataclass(frozen=True)
class PreprocessorSpec:
    """What a preprocessor does: its vocabulary, its casing, its default length.

    `settings` is what `export_saved_model` wrote of a `BertPreprocessor`, None for a published one.
    """

    vocabulary: Path
    lower_case: bool
    seq_length: int
    settings: Mapping[str, Any] | None = None


def read_preprocessor(model: SavedModel) -> PreprocessorSpec:
    """A preprocessor's settings, from its assets and its graph definition.

    Raises:
        CheckpointError: It is not a WordPiece preprocessor of the published form.
    """
    for name in (PREPROCESSOR_ASSET, CONFIG_ASSET):
        if model.child(0, name) is not None:
            return _read_own_preprocessor(model, name)
    ops = {node.op for node in model.ops()}
    if not any("WordpieceTokenize" in op or "FastBertNormalize" in op for op in ops):
        raise CheckpointError(
            f"{model.directory} is a preprocessor without WordPiece (SentencePiece, as ALBERT's?)", TRUST
        )
    if not model.meta_graph.asset_file_def:
        raise CheckpointError(f"{model.directory} has no vocabulary among its assets", TRUST)
    return PreprocessorSpec(
        vocabulary=model.asset_file(0),
        lower_case="CaseFoldUTF8" in ops,
        seq_length=_seq_length(model),
    )


def _read_own_preprocessor(model: SavedModel, name: str) -> PreprocessorSpec:
    path, vocabulary = model.asset(name), model.asset("vocab_file")
    if path is None or vocabulary is None:
        raise CheckpointError(f"{model.directory} lacks its vocabulary or settings", "export it again")
    try:
        settings = json.loads(path.read_text(encoding="utf-8"))
        return PreprocessorSpec(
            vocabulary, bool(settings["lower_case"]), int(settings["seq_length"]), dict(settings)
        )
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} holds no settings of a preprocessor", "export it again") from error


def _seq_length(model: SavedModel) -> int:
    """The default of bert_pack_inputs' argument, else the static length of the root's outputs."""
    pack = model.child(0, "bert_pack_inputs")
    call = None if pack is None else model.child(pack, "__call__")
    if call is not None:
        spec = model.nodes[call].function.function_spec.fullargspec.named_tuple_value
        fields = {pair.key: pair.value for pair in spec.values}
        arguments = [value.string_value for value in _listed(fields.get("args"))]
        defaults = _listed(fields.get("defaults"))
        for name, value in zip(reversed(arguments), reversed(defaults), strict=False):
            if name == "seq_length" and value.WhichOneof("kind") == "int64_value" and value.int64_value > 0:
                return value.int64_value
    for name in model.concrete_functions(0):
        outputs = model.meta_graph.object_graph_def.concrete_functions[
            name
        ].output_signature.dict_value.fields
        shape = outputs["input_word_ids"].tensor_spec_value.shape if "input_word_ids" in outputs else None
        if shape is not None and len(shape.dim) == 2 and shape.dim[1].size > 0:
            return shape.dim[1].size
    raise CheckpointError(f"{model.directory} does not say its default seq_length", TRUST)


def _listed(value: Any) -> list[Any]:
    if value is None:
        return []
    kind = value.WhichOneof("kind")
    return list(getattr(value, kind).values) if kind in ("list_value", "tuple_value") else []


def _canonical(name: str) -> str:
    for pattern, replacement in _RENAMES:
        name = re.sub(pattern, replacement, name, count=1)
    return name


def _plain(value: np.ndarray, row: Row, config: BertConfig) -> np.ndarray:
    """The tensor in a state's orientation: attention kernels are [H, N, D] or [N, D, H] in TF-Hub's files."""
    if row.name.endswith("attention.output.dense.weight"):
        value = value.reshape(-1, value.shape[-1]) if value.ndim == 3 else value
    elif value.ndim == 3:
        value = value.reshape(value.shape[0], -1)
    elif value.ndim == 2 and not row.is_kernel and row.name.endswith(".bias"):
        value = value.reshape(-1)
    return np.ascontiguousarray(value.T) if row.is_kernel and value.ndim == 2 else value


def _config(model: SavedModel, tensors: dict[str, np.ndarray]) -> BertConfig:
    layers = layer_numbers(tensors)
    if "embedding_projection/kernel" in tensors:
        raise CheckpointError(
            f"{model.directory} has embeddings narrower than its hidden states, which BERT has not", TRUST
        )
    if layers != set(range(len(layers))) or not layers:
        raise CheckpointError(f"{model.directory} is no BERT: its encoder layers are {sorted(layers)}", TRUST)
    needed = (
        "word_embeddings/embeddings",
        "position_embedding/embeddings",
        "type_embeddings/embeddings",
        "transformer/layer_0/self_attention/query/kernel",
        "transformer/layer_0/intermediate/kernel",
    )
    missing = [name for name in needed if name not in tensors]
    if missing:
        raise CheckpointError(f"{model.directory} is no BERT: it has no {', '.join(missing)}", TRUST)
    words, positions, types, query, inner = (tensors[name] for name in needed)
    if {words.ndim, positions.ndim, types.ndim, inner.ndim} != {2} or query.ndim != 3:
        raise CheckpointError(
            f"{model.directory}: the shapes of its variables are not those of a TF-Hub BERT", TRUST
        )
    graph = EncoderGraph(model)
    graph.check_form()
    hidden_dropout, attention_dropout = graph.dropout_rates()
    try:
        return BertConfig(
            vocab_size=words.shape[0],
            hidden_size=words.shape[1],
            num_hidden_layers=len(layers),
            num_attention_heads=query.shape[1],
            intermediate_size=inner.shape[1],
            hidden_act=graph.activation(),
            hidden_dropout_prob=hidden_dropout,
            attention_probs_dropout_prob=attention_dropout,
            max_position_embeddings=positions.shape[0],
            type_vocab_size=types.shape[0],
            layer_norm_eps=graph.layer_norm_eps(),
        )
    except ValueError as error:
        raise CheckpointError(f"{model.directory}: {error}") from error
