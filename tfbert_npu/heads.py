"""The task heads: one row of a table for each, from which everything else that knows heads derives.

A head is a `HeadSpec` here and a short Keras class of the same suffix in `models`. Loading, saving, ONNX and
SavedModel signatures, the gate, cards, the command line and training read the table; none of them has a list
of heads of its own.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Literal, TypeVar

Axis = str | int
"""An axis of a tensor: `"B"` batch, `"S"` length in tokens, `"H"` hidden size, `"L"` labels, `"V"`
vocabulary, `"P"` masked positions, or a fixed size."""

Size = TypeVar("Size")


@dataclass(frozen=True)
class OutputSpec:
    """An output of a model: its name, and what each of its axes is."""

    name: str
    axes: tuple[Axis, ...]

    @property
    def per_token(self) -> bool:
        """Whether there is a value for each token, so that what stands at padding means nothing."""
        return "S" in self.axes

    def everywhere(self) -> OutputSpec:
        """The same output where no masked positions are given, so that it is at every position."""
        return OutputSpec(self.name, tuple("S" if axis == "P" else axis for axis in self.axes))

    def shape(self, sizes: Mapping[str, Size]) -> tuple[Size | int, ...]:
        """The axes' sizes, given those of the named ones."""
        return tuple(sizes[axis] if isinstance(axis, str) else axis for axis in self.axes)


@dataclass(frozen=True)
class LayerSpec:
    """A linear layer of a head: the Keras attribute, its tensors' name and its number of outputs."""

    attribute: str
    tensor: str
    """Name without `.weight` and `.bias`, as transformers writes it."""
    units: Axis
    """`"L"`, `"H"` or a number."""
    google: str | None = None
    """Scope of its variables in Google's checkpoints; None: these do not hold it."""
    activation: Literal["relu", "tanh"] | None = None
    distilbert_only: bool = False
    """DistilBERT has no pooler in its encoder; its classifiers bring this layer in its place."""


@dataclass(frozen=True)
class HeadSpec:
    """A task head.

    Args:
        name: In manifests and on the command line.
        suffix: transformers' class without `Bert` or `DistilBert`.
        layers: The linear layers on top of what the encoder gives.
        outputs: In their order; empty for the bare encoder, which gives `ENCODER_OUTPUTS`.
        pooler: Whether its layers read `pooled_output`; otherwise `sequence_output`, token by token.
        mlm: Whether it needs the masked language model head.
        causal: Whether a token sees only those before it.
        distilbert: Whether DistilBERT has such a head.
        pairs: Whether it reads pairs of texts always, so that tests of it must.
        choices: Whether its inputs are [B, choices, S].
        task: The task's name on the hub (huggingface.co/tasks).
        commands: What `tfbert-npu` can ask of it: names of commands, and of tasks of `train` and `evaluate`.
    """

    name: str
    suffix: str
    layers: tuple[LayerSpec, ...] = ()
    outputs: tuple[OutputSpec, ...] = ()
    pooler: bool = False
    mlm: bool = False
    causal: bool = False
    distilbert: bool = True
    pairs: bool = False
    choices: bool = False
    task: str = "feature-extraction"
    commands: tuple[str, ...] = ()

    def layers_of(self, distilbert: bool) -> tuple[LayerSpec, ...]:
        """The linear layers in one of the two families."""
        return tuple(layer for layer in self.layers if distilbert or not layer.distilbert_only)

    @property
    def required(self) -> tuple[str, ...]:
        """Tensors without which a state has no such head."""
        mlm = ("cls.predictions.transform.dense.weight", "cls.predictions.bias") if self.mlm else ()
        return (*mlm, *(f"{layer.tensor}.weight" for layer in self.layers_of(distilbert=False)))

    @property
    def prefixes(self) -> tuple[str, ...]:
        """What the names of its own tensors begin with."""
        return (*(f"{layer.tensor}." for layer in self.layers), *(("cls.predictions.",) if self.mlm else ()))


ENCODER_OUTPUTS = (OutputSpec("sequence_output", ("B", "S", "H")), OutputSpec("pooled_output", ("B", "H")))
"""What every encoder gives; `encoder_outputs_0` and so on have the axes of `sequence_output`."""

_PRE_CLASSIFIER = LayerSpec("pre_classifier", "pre_classifier", "H", activation="relu", distilbert_only=True)
_CLASSIFIER = LayerSpec("classifier", "classifier", "L", google="")
_NSP = LayerSpec("seq_relationship", "cls.seq_relationship", 2, google="cls/seq_relationship/")
_MLM_LOGITS = OutputSpec("mlm_logits", ("B", "P", "V"))
_NSP_LOGITS = OutputSpec("nsp_logits", ("B", 2))

_HEADS: dict[str, HeadSpec] = {}


def register_head(spec: HeadSpec) -> HeadSpec:
    """Add a head to the table.

    Raises:
        ValueError: Another head has its name or its suffix.
    """
    for known in _HEADS.values():
        if known != spec and (known.name == spec.name or known.suffix == spec.suffix):
            raise ValueError(f"{spec.name} collides with the head {known.name}; give it a name of its own")
    _HEADS[spec.name] = spec
    return spec


def heads() -> tuple[HeadSpec, ...]:
    """Every head, the bare encoder first."""
    return tuple(_HEADS.values())


def head_named(name: str) -> HeadSpec:
    """The head with this name.

    Raises:
        ValueError: There is none.
    """
    if name not in _HEADS:
        raise ValueError(f"head {name!r} is unknown; known are {', '.join(_HEADS)}")
    return _HEADS[name]


def heads_for(command: str) -> tuple[HeadSpec, ...]:
    """The heads of which a command, or a task of `train` or `evaluate`, can be asked."""
    return tuple(head for head in _HEADS.values() if command in head.commands)


def head_of_class(name: str) -> HeadSpec | None:
    """The head of a transformers class such as `"DistilBertForMaskedLM"`; None if it is none of ours."""
    suffix = name.removeprefix("TF").removeprefix("Distil").removeprefix("Bert")
    return next((head for head in _HEADS.values() if head.suffix == suffix), None)


def head_prefixes() -> tuple[str, ...]:
    """What the names of all heads' tensors begin with."""
    return tuple(dict.fromkeys(prefix for head in _HEADS.values() for prefix in head.prefixes))


def is_head_tensor(name: str) -> bool:
    """Whether a tensor belongs to a head, ours or transformers' own beside it."""
    return name.startswith((*head_prefixes(), "cls."))


def head_in(names: Collection[str]) -> HeadSpec | None:
    """The head whose tensors are all among `names`, of several the one with the most; None if none is."""
    found = [head for head in _HEADS.values() if head.required and set(head.required) <= set(names)]
    return max(found, key=lambda head: len(head.required), default=None)


ENCODER = register_head(HeadSpec("encoder", "Model", commands=("embed", "similarity")))
MASKED_LM = register_head(
    HeadSpec(
        "masked_lm",
        "ForMaskedLM",
        outputs=(_MLM_LOGITS,),
        mlm=True,
        task="fill-mask",
        commands=("fill-mask",),
    )
)
CAUSAL_LM = register_head(
    HeadSpec(
        "causal_lm",
        "LMHeadModel",
        outputs=(_MLM_LOGITS,),
        mlm=True,
        causal=True,
        distilbert=False,
        task="text-generation",
    )
)
PRETRAINING = register_head(
    HeadSpec(
        "pretraining",
        "ForPreTraining",
        layers=(_NSP,),
        outputs=(_MLM_LOGITS, _NSP_LOGITS),
        pooler=True,
        mlm=True,
        distilbert=False,
        pairs=True,
        task="fill-mask",
        commands=("fill-mask",),
    )
)
NEXT_SENTENCE = register_head(
    HeadSpec(
        "next_sentence",
        "ForNextSentencePrediction",
        layers=(_NSP,),
        outputs=(_NSP_LOGITS,),
        pooler=True,
        distilbert=False,
        pairs=True,
        task="text-classification",
        commands=("classify",),
    )
)
SEQUENCE_CLASSIFICATION = register_head(
    HeadSpec(
        "sequence_classification",
        "ForSequenceClassification",
        layers=(_PRE_CLASSIFIER, _CLASSIFIER),
        outputs=(OutputSpec("logits", ("B", "L")),),
        pooler=True,
        task="text-classification",
        commands=("classify", "pair", "regression", "rerank"),
    )
)
MULTIPLE_CHOICE = register_head(
    HeadSpec(
        "multiple_choice",
        "ForMultipleChoice",
        layers=(_PRE_CLASSIFIER, LayerSpec("classifier", "classifier", 1, google="")),
        outputs=(OutputSpec("logits", ("B", 1)),),
        pooler=True,
        pairs=True,
        choices=True,
        task="multiple-choice",
        commands=("choice",),
    )
)
TOKEN_CLASSIFICATION = register_head(
    HeadSpec(
        "token_classification",
        "ForTokenClassification",
        layers=(_CLASSIFIER,),
        outputs=(OutputSpec("logits", ("B", "S", "L")),),
        task="token-classification",
        commands=("ner",),
    )
)
QUESTION_ANSWERING = register_head(
    HeadSpec(
        "question_answering",
        "ForQuestionAnswering",
        layers=(LayerSpec("qa_outputs", "qa_outputs", 2, google="cls/squad/"),),
        outputs=(OutputSpec("start_logits", ("B", "S")), OutputSpec("end_logits", ("B", "S"))),
        pairs=True,
        task="question-answering",
        commands=("qa",),
    )
)
