"""The one table of names: how each format calls each tensor of a BERT.

A *state* is a dict of numpy arrays under Hugging Face's names of the newest form, without the `bert.` or
`distilbert.` prefix of the encoder, and in PyTorch's orientation (a linear weight is [out, in]). A
safetensors file of BertModel is a state as it stands; every other format is renamed and turned into one at
the door, so that readers, writers and exporters need to know only this form. DistilBERT's tensors have
BERT's names in a state.

The columns of the table:

- `name`: the name in a state; `{i}` is the number of the encoder layer.
- `attribute`: where the variable is in our Keras layers, as an attribute path from `BertEncoder`.
- `distilbert`: Hugging Face DistilBERT's name (None: DistilBERT has no such tensor).
- `google`: the name in Google's TensorFlow 1 checkpoints.
- `tfhub`: the variable's name in TF-Hub SavedModels exported by tf-models-official.
- `is_kernel`: a linear weight: [out, in] in a state, [in, out] in Keras and TensorFlow.
- `google_out_in`: Google's file holds this linear weight as [out, in] too, as it does in its task heads.

The attribute path of a task head's row starts at the head (`models.head.BertHead`), not at the encoder.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from tfbert_npu.config import BertConfig
from tfbert_npu.heads import LayerSpec


@dataclass(frozen=True)
class Row:
    """One tensor, or one per encoder layer, under the names that each format gives it."""

    name: str
    attribute: str
    distilbert: str | None
    google: str
    tfhub: str
    is_kernel: bool = False
    google_out_in: bool = False

    @property
    def per_layer(self) -> bool:
        """Whether there is one such tensor in each encoder layer."""
        return "{i}" in self.name

    def at(self, layer: int) -> Row:
        """The row with the layer's number filled in."""
        return replace(
            self,
            name=self.name.format(i=layer),
            attribute=self.attribute.format(i=layer),
            distilbert=None if self.distilbert is None else self.distilbert.format(i=layer),
            google=self.google.format(i=layer),
            tfhub=self.tfhub.format(i=layer),
        )


def _dense(name: str, attribute: str, distilbert: str | None, google: str, tfhub: str) -> tuple[Row, Row]:
    return (
        Row(
            f"{name}.weight",
            f"{attribute}.kernel",
            distilbert and f"{distilbert}.weight",
            f"{google}/kernel",
            f"{tfhub}/kernel",
            is_kernel=True,
        ),
        Row(
            f"{name}.bias",
            f"{attribute}.bias",
            distilbert and f"{distilbert}.bias",
            f"{google}/bias",
            f"{tfhub}/bias",
        ),
    )


def _norm(name: str, attribute: str, distilbert: str | None, google: str, tfhub: str) -> tuple[Row, Row]:
    return (
        Row(
            f"{name}.weight",
            f"{attribute}.gamma",
            distilbert and f"{distilbert}.weight",
            f"{google}/gamma",
            f"{tfhub}/gamma",
        ),
        Row(
            f"{name}.bias",
            f"{attribute}.beta",
            distilbert and f"{distilbert}.bias",
            f"{google}/beta",
            f"{tfhub}/beta",
        ),
    )


_EMBEDDINGS = (
    Row(
        "embeddings.word_embeddings.weight",
        "embeddings.word_embeddings.embeddings",
        "embeddings.word_embeddings.weight",
        "bert/embeddings/word_embeddings",
        "word_embeddings/embeddings",
    ),
    Row(
        "embeddings.position_embeddings.weight",
        "embeddings.position_embeddings.embeddings",
        "embeddings.position_embeddings.weight",
        "bert/embeddings/position_embeddings",
        "position_embedding/embeddings",
    ),
    Row(
        "embeddings.token_type_embeddings.weight",
        "embeddings.token_type_embeddings.embeddings",
        None,
        "bert/embeddings/token_type_embeddings",
        "type_embeddings/embeddings",
    ),
    *_norm(
        "embeddings.LayerNorm",
        "embeddings.layer_norm",
        "embeddings.LayerNorm",
        "bert/embeddings/LayerNorm",
        "embeddings/layer_norm",
    ),
)

_LAYER = (
    *(
        row
        for part, letter in (("query", "q"), ("key", "k"), ("value", "v"))
        for row in _dense(
            f"encoder.layer.{{i}}.attention.self.{part}",
            f"layers.{{i}}.attention.{part}",
            f"transformer.layer.{{i}}.attention.{letter}_lin",
            f"bert/encoder/layer_{{i}}/attention/self/{part}",
            f"transformer/layer_{{i}}/self_attention/{part}",
        )
    ),
    *_dense(
        "encoder.layer.{i}.attention.output.dense",
        "layers.{i}.attention.output_projection",
        "transformer.layer.{i}.attention.out_lin",
        "bert/encoder/layer_{i}/attention/output/dense",
        "transformer/layer_{i}/self_attention/attention_output",
    ),
    *_norm(
        "encoder.layer.{i}.attention.output.LayerNorm",
        "layers.{i}.attention_norm",
        "transformer.layer.{i}.sa_layer_norm",
        "bert/encoder/layer_{i}/attention/output/LayerNorm",
        "transformer/layer_{i}/self_attention_layer_norm",
    ),
    *_dense(
        "encoder.layer.{i}.intermediate.dense",
        "layers.{i}.intermediate",
        "transformer.layer.{i}.ffn.lin1",
        "bert/encoder/layer_{i}/intermediate/dense",
        "transformer/layer_{i}/intermediate",
    ),
    *_dense(
        "encoder.layer.{i}.output.dense",
        "layers.{i}.output_projection",
        "transformer.layer.{i}.ffn.lin2",
        "bert/encoder/layer_{i}/output/dense",
        "transformer/layer_{i}/output",
    ),
    *_norm(
        "encoder.layer.{i}.output.LayerNorm",
        "layers.{i}.output_norm",
        "transformer.layer.{i}.output_layer_norm",
        "bert/encoder/layer_{i}/output/LayerNorm",
        "transformer/layer_{i}/output_layer_norm",
    ),
)

_POOLER = _dense("pooler.dense", "pooler", None, "bert/pooler/dense", "pooler_transform")

_MLM = (
    *_dense(
        "cls.predictions.transform.dense",
        "mlm_head.dense",
        "vocab_transform",
        "cls/predictions/transform/dense",
        "bert/cls/predictions/transform/dense",
    ),
    *_norm(
        "cls.predictions.transform.LayerNorm",
        "mlm_head.layer_norm",
        "vocab_layer_norm",
        "cls/predictions/transform/LayerNorm",
        "bert/cls/predictions/transform/LayerNorm",
    ),
    Row(
        "cls.predictions.bias",
        "mlm_head.bias",
        "vocab_projector.bias",
        "cls/predictions/output_bias",
        "bert/cls/predictions/output_bias/bias",
    ),
)


def encoder_rows(config: BertConfig) -> Iterator[Row]:
    """The tensors of the encoder without its pooler."""
    for row in _EMBEDDINGS:
        if row.distilbert is not None or config.model_type != "distilbert":
            yield row
    for layer in range(config.num_hidden_layers):
        for row in _LAYER:
            yield row.at(layer)


def pooler_rows(config: BertConfig) -> Iterator[Row]:
    """The tensors of the pooler; DistilBERT has none."""
    if config.model_type != "distilbert":
        yield from _POOLER


def mlm_rows() -> Iterator[Row]:
    """The tensors of the masked language model head; its output matrix is the word embedding table."""
    yield from _MLM


def head_rows(layer: LayerSpec) -> tuple[Row, Row]:
    """The weight and the bias of one linear layer of a task head.

    Google's run_classifier.py, run_squad.py and run_pretraining.py make these with get_variable, as
    [out, in]; TF-Hub modules hold none of them. In DistilBERT they have BERT's names.
    """
    name, attribute = layer.tensor, layer.attribute
    google = (
        ("", "") if layer.google is None else (f"{layer.google}output_weights", f"{layer.google}output_bias")
    )
    return (
        Row(
            f"{name}.weight",
            f"{attribute}.kernel",
            f"{name}.weight",
            google[0],
            "",
            is_kernel=True,
            google_out_in=True,
        ),
        Row(f"{name}.bias", f"{attribute}.bias", f"{name}.bias", google[1], ""),
    )


def head_shapes(layers: Mapping[LayerSpec, int], config: BertConfig) -> dict[str, tuple[int, ...]]:
    """Shapes of the tensors of a head's linear layers, one after the other, with so many outputs each."""
    sizes: dict[str, tuple[int, ...]] = {}
    inputs = config.hidden_size
    for layer, outputs in layers.items():
        sizes |= {f"{layer.tensor}.weight": (outputs, inputs), f"{layer.tensor}.bias": (outputs,)}
        inputs = outputs
    return sizes


def shapes(config: BertConfig) -> dict[str, tuple[int, ...]]:
    """Shape of every tensor that a state of the encoder, its pooler and its MLM head can hold."""
    hidden, inner = config.hidden_size, config.intermediate_size
    special = {
        "embeddings.word_embeddings.weight": (config.vocab_size, hidden),
        "embeddings.position_embeddings.weight": (config.max_position_embeddings, hidden),
        "embeddings.token_type_embeddings.weight": (config.type_vocab_size, hidden),
        "cls.predictions.bias": (config.vocab_size,),
    }
    sizes = {}
    for row in (*encoder_rows(config), *pooler_rows(config), *mlm_rows()):
        if row.name in special:
            sizes[row.name] = special[row.name]
        elif row.name.endswith("intermediate.dense.weight"):
            sizes[row.name] = (inner, hidden)
        elif row.name.endswith("intermediate.dense.bias"):
            sizes[row.name] = (inner,)
        elif row.is_kernel and ".attention." not in row.name and ".output." in row.name:
            sizes[row.name] = (hidden, inner)
        else:
            sizes[row.name] = (hidden, hidden) if row.is_kernel else (hidden,)
    return sizes
