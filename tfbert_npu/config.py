"""What a model is: sizes, activation, dropout and labels, read from and written to `config.json`."""

from __future__ import annotations

import dataclasses
import json
import os
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, get_args

from tfbert_npu._files import refuse_pointer
from tfbert_npu._labels import MOST_LABELS, read_labels
from tfbert_npu.errors import CheckpointError

ModelType = Literal["bert", "distilbert"]
Activation = Literal["gelu", "gelu_tanh", "relu", "silu", "tanh", "linear"]
ProblemType = Literal["regression", "single_label_classification", "multi_label_classification"]
ConfigSource = Literal["auto", "huggingface", "google"]

# transformers/activations.py, ACT2FN. "gelu" is the exact, erf-based one there (Hendrycks & Gimpel 2016).
_HF_ACTIVATIONS: dict[str, Activation] = {
    "gelu": "gelu",
    "gelu_python": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_fast": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "gelu_tanh": "gelu_tanh",
    "relu": "relu",
    "silu": "silu",
    "swish": "silu",
    "tanh": "tanh",
    "linear": "linear",
}
_HF_ACTIVATION_NAME: dict[Activation, str] = {"gelu_tanh": "gelu_new"}

# google-research/bert modeling.py, get_activation: its "gelu" is the tanh approximation.
_GOOGLE_ACTIVATIONS: dict[str, Activation] = {
    "gelu": "gelu_tanh",
    "relu": "relu",
    "tanh": "tanh",
    "linear": "linear",
    "": "linear",
}

# transformers/models/distilbert/configuration_distilbert.py
_DISTILBERT_KEYS = {
    "dim": "hidden_size",
    "hidden_dim": "intermediate_size",
    "n_layers": "num_hidden_layers",
    "n_heads": "num_attention_heads",
    "activation": "hidden_act",
    "dropout": "hidden_dropout_prob",
    "attention_dropout": "attention_probs_dropout_prob",
    "seq_classif_dropout": "classifier_dropout",
}

# A configuration is read before its weights are: one that no machine could hold must not be built first.

_LIMITS = {
    "vocab_size": 10_000_000,
    "hidden_size": 65_536,
    "num_hidden_layers": 1_000,
    "num_attention_heads": 4_096,
    "intermediate_size": 1_048_576,
    "max_position_embeddings": 1_048_576,
    "type_vocab_size": 65_536,
}


@dataclasses.dataclass(frozen=True)
class BertConfig:
    """Architecture of a BERT or DistilBERT model, with Hugging Face's field names.

    `hidden_act` is normalized: `"gelu"` is always the exact GELU, 0.5 x (1 + erf(x / sqrt 2)), and
    `"gelu_tanh"` always its tanh approximation. Files name them differently: Hugging Face's "gelu" is the
    exact one and "gelu_new" the approximation; Google's "gelu", in bert_config.json and in TF-Hub modules,
    is the approximation.

    DistilBERT (`model_type="distilbert"`) has no token types (`type_vocab_size` 0) and no pooler.

    Raises:
        ValueError: A size is not positive, is beyond reason, or contradicts another one; the activation or
            the model type is unknown.

    Example:
        >>> from tfbert_npu import BertConfig
        >>> config = BertConfig(hidden_size=384, num_hidden_layers=6, intermediate_size=1536)
        >>> config.hidden_size // config.num_attention_heads
        32
    """

    model_type: ModelType = "bert"
    vocab_size: int = 30522
    hidden_size: int = 768
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    intermediate_size: int = 3072
    hidden_act: Activation = "gelu"
    hidden_dropout_prob: float = 0.1
    attention_probs_dropout_prob: float = 0.1
    max_position_embeddings: int = 512
    type_vocab_size: int = 2
    initializer_range: float = 0.02
    layer_norm_eps: float = 1e-12
    pad_token_id: int = 0
    classifier_dropout: float | None = None
    qa_dropout: float | None = None
    """DistilBERT's, before the layer that finds answers; BERT has none there."""
    problem_type: ProblemType | None = None
    id2label: tuple[str, ...] | None = None
    """Label names by class index; their number is the number of labels."""
    score_activation: str | None = None
    """PyTorch class that makes a cross-encoder's score of its logit, as sentence-transformers notes it."""

    def __post_init__(self) -> None:
        if self.model_type not in get_args(ModelType):
            raise ValueError(f"model_type must be one of {get_args(ModelType)}, got {self.model_type!r}")
        if self.hidden_act not in get_args(Activation):
            raise ValueError(f"hidden_act must be one of {get_args(Activation)}, got {self.hidden_act!r}")
        if self.problem_type is not None and self.problem_type not in get_args(ProblemType):
            raise ValueError(
                f"problem_type must be one of {get_args(ProblemType)}, got {self.problem_type!r}"
            )
        if self.model_type == "distilbert":
            object.__setattr__(self, "type_vocab_size", 0)
            if self.classifier_dropout is None:
                object.__setattr__(self, "classifier_dropout", 0.2)  # seq_classif_dropout of transformers
            if self.qa_dropout is None:
                object.__setattr__(self, "qa_dropout", 0.1)
        for name, most in _LIMITS.items():
            value = getattr(self, name)
            least = 0 if name == "type_vocab_size" and self.model_type == "distilbert" else 1
            if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
                raise ValueError(f"{name} must be a whole number from {least} to {most}, got {value!r}")
        if self.hidden_size % self.num_attention_heads:
            raise ValueError(
                f"hidden_size {self.hidden_size} is not divisible by num_attention_heads "
                f"{self.num_attention_heads}"
            )
        optional = ("classifier_dropout", "qa_dropout")
        for name in ("hidden_dropout_prob", "attention_probs_dropout_prob", *optional):
            rate = getattr(self, name)
            if rate is None and name in optional:
                continue
            if isinstance(rate, bool) or not isinstance(rate, (int, float)) or not 0 <= rate < 1:
                raise ValueError(f"{name} must be a rate in [0, 1), got {rate!r}")
        for name in ("initializer_range", "layer_norm_eps"):
            number = getattr(self, name)
            if isinstance(number, bool) or not isinstance(number, (int, float)) or not 0 < number < 1:
                raise ValueError(f"{name} must be a number in (0, 1), got {number!r}")
        if self.id2label is not None:
            labels = tuple(self.id2label)
            if not labels or not all(isinstance(label, str) for label in labels):
                raise ValueError(f"id2label must name at least one label by a string, got {labels!r}")
            if len(labels) > MOST_LABELS:
                raise ValueError(f"a model has at most {MOST_LABELS} labels, got {len(labels)}")
            repeated = [label for label, count in Counter(labels).items() if count > 1]
            if repeated:
                raise ValueError(
                    f"id2label gives the name {repeated[0]!r} to more than one label; rename them, or each "
                    "answer would be of the last"
                )
            object.__setattr__(self, "id2label", labels)
        if isinstance(self.pad_token_id, bool) or not isinstance(self.pad_token_id, int):
            raise ValueError(f"pad_token_id must be a whole number, got {self.pad_token_id!r}")
        if not 0 <= self.pad_token_id < self.vocab_size:
            raise ValueError(
                f"pad_token_id must be in the vocabulary, 0 to {self.vocab_size - 1}, got {self.pad_token_id}"
            )

    @property
    def head_size(self) -> int:
        """Width of one attention head."""
        return self.hidden_size // self.num_attention_heads

    @property
    def num_labels(self) -> int:
        """Number of labels of a classification head; 2 where the file names none, as in transformers."""
        return 2 if self.id2label is None else len(self.id2label)

    @property
    def label2id(self) -> dict[str, int]:
        """Class index by label name."""
        return {label: index for index, label in enumerate(self.id2label or ("LABEL_0", "LABEL_1"))}

    def replace(self, **changes: Any) -> BertConfig:
        """A copy with some fields changed, checked like a new one."""
        return dataclasses.replace(self, **changes)

    def to_dict(self) -> dict[str, Any]:
        """Fields as plain JSON types; `BertConfig(**config.to_dict())` is the same configuration."""
        fields = dataclasses.asdict(self)
        if fields["id2label"] is not None:
            fields["id2label"] = list(fields["id2label"])
        return fields

    @classmethod
    def from_json(cls, path: str | os.PathLike[str], source: ConfigSource = "auto") -> BertConfig:
        """Read Hugging Face's config.json or Google's bert_config.json.

        Args:
            path: The file, or a directory that holds `config.json` or `bert_config.json`.
            source: Whose names and whose GELU the file means. `"auto"` takes a file called
                `bert_config.json` for Google's and any other for Hugging Face's.

        Raises:
            FileNotFoundError: There is no such file.
            CheckpointError: The file is not a JSON object, or describes another or an impossible model.
        """
        file = _find_config(Path(path))
        if source not in get_args(ConfigSource):
            raise ValueError(f"source must be one of {get_args(ConfigSource)}, got {source!r}")
        if source == "auto":
            source = "google" if file.name == "bert_config.json" else "huggingface"
        try:
            values = json.loads(file.read_text(encoding="utf-8-sig"))
        except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
            refuse_pointer(file)
            raise CheckpointError(f"{file} is not JSON ({error})", "download the file again") from error
        if not isinstance(values, dict):
            raise CheckpointError(f"{file} must hold a JSON object, not a {type(values).__name__}")
        if str(values.get("module", "")).split(".")[0] in ("keras_hub", "keras_nlp"):
            raise CheckpointError(
                f"{file} belongs to a preset of keras-hub, whose weights are not read here",
                "load the Hugging Face checkpoint that it was made from",
            )
        try:
            return cls._from_google(values) if source == "google" else cls._from_huggingface(values)
        except (TypeError, ValueError) as error:
            raise CheckpointError(f"{file}: {error}") from error

    @classmethod
    def _from_google(cls, values: Mapping[str, Any]) -> BertConfig:
        known = _known_fields(values)
        known["hidden_act"] = _activation(values.get("hidden_act", "gelu") or "", _GOOGLE_ACTIVATIONS)
        return cls(**known)

    @classmethod
    def _from_huggingface(cls, values: Mapping[str, Any]) -> BertConfig:
        # The oldest BERT repositories on the hub have no "model_type" at all.
        model_type = values.get("model_type", "bert")
        if model_type not in get_args(ModelType):
            raise ValueError(
                f"model_type {model_type!r} is not supported; supported are {', '.join(get_args(ModelType))}"
            )
        if values.get("position_embedding_type", "absolute") != "absolute":
            raise ValueError(
                f"position_embedding_type {values['position_embedding_type']!r} is not supported, "
                "only 'absolute' is"
            )
        if model_type == "distilbert":
            values = {_DISTILBERT_KEYS.get(name, name): value for name, value in values.items()}
            values.setdefault("num_hidden_layers", 6)
            values["layer_norm_eps"] = 1e-12  # fixed in DistilBERT's code, absent from its files
        known = _known_fields(values)
        known["model_type"] = model_type
        known["hidden_act"] = _activation(values.get("hidden_act", "gelu"), _HF_ACTIVATIONS)
        known["id2label"] = read_labels(values)
        known["score_activation"] = _score_activation(values)
        if known.get("pad_token_id") is None:
            known.pop("pad_token_id", None)
        return cls(**known)

    def to_huggingface(self, architecture: str | None = None) -> dict[str, Any]:
        """The content of a `config.json` that transformers reads.

        Args:
            architecture: Class name for `"architectures"`, such as `"BertForMaskedLM"`; by default the
                encoder's, `BertModel` or `DistilBertModel`.
        """
        values = self.to_dict()
        values["hidden_act"] = _HF_ACTIVATION_NAME.get(self.hidden_act, self.hidden_act)
        activation = values.pop("score_activation")
        if activation is not None:
            values["sentence_transformers"] = {"activation_fn": activation}
        for name in ("classifier_dropout", "qa_dropout", "problem_type", "id2label"):
            if values[name] is None:
                del values[name]
        if self.id2label is not None:
            values["id2label"] = {str(index): label for index, label in enumerate(self.id2label)}
            values["label2id"] = self.label2id
        default = "BertModel"
        if self.model_type == "distilbert":
            default = "DistilBertModel"
            for theirs, ours in _DISTILBERT_KEYS.items():
                if ours in values:
                    values[theirs] = values.pop(ours)
            del values["type_vocab_size"], values["layer_norm_eps"]
        else:
            values["position_embedding_type"] = "absolute"
        if architecture == "BertLMHeadModel":
            values["is_decoder"] = True  # without it transformers' class attends in both directions
        return {"architectures": [architecture or default], **values}

    def to_json(self, path: str | os.PathLike[str], architecture: str | None = None) -> None:
        """Write `to_huggingface(architecture)` to a file."""
        text = json.dumps(self.to_huggingface(architecture), indent=2, ensure_ascii=False)
        Path(path).write_text(text + "\n", encoding="utf-8")


def _find_config(path: Path) -> Path:
    if not path.is_dir():
        if not path.is_file():
            raise FileNotFoundError(f"{path} does not exist; give a config.json or a directory with one")
        return path
    for name in ("config.json", "bert_config.json"):
        if (path / name).is_file():
            return path / name
    raise FileNotFoundError(f"{path} holds neither config.json nor bert_config.json")


def _known_fields(values: Mapping[str, Any]) -> dict[str, Any]:
    fields = {field.name for field in dataclasses.fields(BertConfig)} - {
        "model_type",
        "hidden_act",
        "id2label",
    }
    return {name: values[name] for name in fields if name in values}


def _activation(name: Any, table: Mapping[str, Activation]) -> Activation:
    if not isinstance(name, str) or name.lower() not in table:
        raise ValueError(
            f"hidden_act {name!r} is unknown; known are {', '.join(sorted(filter(None, table)))}"
        )
    return table[name.lower()]


def _score_activation(values: Mapping[str, Any]) -> str | None:
    """Where sentence-transformers notes it, since its version 4 and before."""
    own = values.get("sentence_transformers")
    named = own.get("activation_fn") if isinstance(own, Mapping) else None
    named = named or values.get("sbert_ce_default_activation_function")
    return named if isinstance(named, str) else None
