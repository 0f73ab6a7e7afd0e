"""What every task head shares: the encoder, labels, `compile`, and Hugging Face files both ways."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import keras
from keras import ops

from tfbert_npu.checkpoints.head_files import load_head, save_head
from tfbert_npu.config import BertConfig, ProblemType
from tfbert_npu.heads import HeadSpec, LayerSpec
from tfbert_npu.inputs import MLM_POSITIONS, check_inputs
from tfbert_npu.models.common import dense, dropout, freeze_parts, frozen_parts
from tfbert_npu.models.encoder import BertEncoder


class BertHead(keras.Model):
    """Base of the task heads; not used itself.

    A head has a row of `tfbert_npu.heads` as its `spec`, which says what it needs of the encoder and which
    linear layers it adds; it implements `call` and `default_loss`. `BertHead.class_of(spec)` finds it.

    Args:
        encoder: The encoder to put the head on, or the `BertConfig` (or its fields) of a new one.
        num_labels: Number of labels; by default the configuration's.
        labels: Names of the labels, in the order of their class indices, instead of `num_labels`.
        problem_type: `"single_label_classification"`, `"multi_label_classification"` or `"regression"`; by
            default the configuration's, else regression for one label and single label for more.
        gradient_checkpointing: See `BertEncoder`; for a new encoder only.
        **kwargs: Arguments of `keras.Model`: `name`, `dtype`, `trainable`.

    Raises:
        ValueError: The encoder lacks what the head needs, or DistilBERT has no such head.
    """

    built: bool
    mlm_head: Any

    spec: ClassVar[HeadSpec]
    _classes: ClassVar[dict[str, type[BertHead]]] = {}

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "spec" in cls.__dict__:
            BertHead._classes[cls.spec.name] = cls

    @classmethod
    def class_of(cls, spec: HeadSpec) -> type[BertHead]:
        """The class of a head whose module has been imported.

        Raises:
            ValueError: There is none.
        """
        if spec.name not in cls._classes:
            raise ValueError(f"no class has the head {spec.name}; import the module that defines it")
        return cls._classes[spec.name]

    def __init__(
        self,
        encoder: BertEncoder | BertConfig | Mapping[str, Any],
        *,
        num_labels: int | None = None,
        labels: Sequence[str] | None = None,
        problem_type: ProblemType | None = None,
        gradient_checkpointing: bool = False,
        **kwargs: Any,
    ) -> None:
        if not isinstance(encoder, BertEncoder):
            if not isinstance(encoder, BertConfig):
                encoder = BertConfig(**encoder)
            encoder = BertEncoder(
                encoder,
                add_pooler=self.spec.pooler,
                mlm=self.spec.mlm,
                causal=self.spec.causal,
                gradient_checkpointing=gradient_checkpointing,
                dtype=kwargs.get("dtype"),
                name="encoder",
            )
        kwargs.setdefault("dtype", encoder.dtype_policy)
        super().__init__(**kwargs)
        self._check_encoder(encoder)
        self.encoder = encoder
        if self.spec.mlm:
            self.mlm_head = encoder.mlm_head
        self.config = with_labels(encoder.config, num_labels, labels, problem_type)
        self.seed_generator = keras.random.SeedGenerator()
        for layer, outputs in self.parts.items():
            setattr(self, layer.attribute, dense(outputs, self.config, self.dtype_policy, layer.attribute))

    @property
    def parts(self) -> dict[LayerSpec, int]:
        """The head's linear layers and how many outputs each has."""
        sizes = {"L": self.config.num_labels, "H": self.config.hidden_size}
        layers = self.spec.layers_of(self.config.model_type == "distilbert")
        return {
            layer: sizes[layer.units] if isinstance(layer.units, str) else layer.units for layer in layers
        }

    def _check_encoder(self, encoder: BertEncoder) -> None:
        name = type(self).__name__
        if encoder.config.model_type == "distilbert" and not self.spec.distilbert:
            raise ValueError(f"there is no {name} for DistilBERT; use BertForMaskedLM or a BERT checkpoint")
        if self.spec.mlm and encoder.mlm_head is None:
            raise ValueError(
                f"{name} needs an encoder with a masked language model head; make it with mlm=True"
            )
        if self.spec.causal != encoder.causal:
            raise ValueError(
                f"{name} needs an encoder with causal={self.spec.causal}; make it so, or let the head make it"
            )

    @property
    def architecture(self) -> str:
        """Name of transformers' class with the same weights."""
        name = type(self).__name__
        return name.replace("Bert", "DistilBert", 1) if self.config.model_type == "distilbert" else name

    def build(self, input_shape: Any = None) -> None:
        """Create every weight; their sizes do not depend on the input."""
        if self.built:
            return
        self.encoder.build()
        inputs = self.config.hidden_size
        for layer, outputs in self.parts.items():
            getattr(self, layer.attribute).build((None, inputs))
            inputs = outputs
        self.built = True

    def __call__(self, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        """Check the inputs, then call the model."""
        return super().__call__(self._checked(inputs), *args, **kwargs)

    def _checked(self, inputs: Any) -> dict[str, Any]:
        mlm = self.spec.mlm and isinstance(inputs, Mapping) and MLM_POSITIONS in inputs
        return check_inputs(inputs, self.config, mlm=mlm)

    def _drop(self, x: Any, training: bool | None, rate: float | None = None) -> Any:
        # A salted seed, as in the encoder: one generator serves the head's only dropout.
        if rate is None:
            rate = self.config.classifier_dropout
        if rate is None:
            rate = self.config.hidden_dropout_prob
        seed = self.seed_generator.next() if training and rate else None
        return dropout(x, rate, seed, salt=4)

    @property
    def num_classes(self) -> int | None:
        """Number of values that an integer label may have; None where labels are no class indices."""
        return None

    def default_loss(self) -> Any:
        """The loss of transformers' class of that name: a Keras loss, or a dict of them by output."""
        raise NotImplementedError

    def default_loss_weights(self) -> dict[str, float] | None:
        """Weight of each output's loss, where there are several."""
        return None

    def compile(
        self,
        optimizer: Any = "rmsprop",
        loss: Any = "auto",
        loss_weights: Any = None,
        **kwargs: Any,
    ) -> None:
        """`keras.Model.compile`, where `loss="auto"` is the head's own loss (`default_loss`)."""
        if isinstance(loss, str) and loss == "auto":
            loss = self.default_loss()
            loss_weights = self.default_loss_weights() if loss_weights is None else loss_weights
        super().compile(optimizer=optimizer, loss=loss, loss_weights=loss_weights, **kwargs)

    def fit(self, x: Any = None, *args: Any, **kwargs: Any) -> Any:
        """`keras.Model.fit`, with a word on texts."""
        _refuse_texts(x)
        return super().fit(x, *args, **kwargs)

    def predict(self, x: Any, *args: Any, **kwargs: Any) -> Any:
        """`keras.Model.predict`, with a word on texts."""
        _refuse_texts(x)
        return super().predict(x, *args, **kwargs)

    def _maybe_symbolic_build(self, iterator: Any = None, data_batch: Any = None) -> None:
        # To learn a batch's shapes Keras averages it over the replicas, which fails for a dict over several
        # machines; the part of a single replica says as much.
        strategy = self.distribute_strategy
        if iterator is not None and strategy.num_replicas_in_sync > 1:
            _, _, batches = next(iter(iterator))
            data_batch = keras.tree.map_structure(
                lambda value: strategy.experimental_local_results(value)[0], next(batches)
            )
            iterator = None
        super()._maybe_symbolic_build(iterator=iterator, data_batch=data_batch)

    def train_step(self, data: Any) -> dict[str, Any]:
        """One step of `fit`."""
        return self._reducible(super().train_step(data))

    def test_step(self, data: Any) -> dict[str, Any]:
        """One step of `evaluate`."""
        return self._reducible(super().test_step(data))

    def _reducible(self, logs: dict[str, Any]) -> dict[str, Any]:
        # Over several machines Keras averages a step's logs along an axis that scalars do not have.
        if self.distribute_strategy.cluster_resolver is None:
            return logs
        return {name: ops.reshape(value, (1,)) for name, value in logs.items()}

    def compile_from_config(self, config: dict[str, Any]) -> None:
        """Compile as a saved model was, optimizer state to be filled in by the loader."""
        self.compile(**keras.saving.deserialize_keras_object(config))
        if self.optimizer is not None and self.built:
            self.optimizer.build(self.trainable_variables)

    def get_config(self) -> dict[str, Any]:
        """What `from_config` rebuilds the model from."""
        return {
            "name": self.name,
            "trainable": self.trainable,
            "dtype": keras.saving.serialize_keras_object(self.dtype_policy),
            "encoder": keras.saving.serialize_keras_object(self.encoder),
            "labels": None if self.config.id2label is None else list(self.config.id2label),
            "problem_type": self.config.problem_type,
            # The encoder's own parts are in its configuration.
            "frozen": [path for path in frozen_parts(self) if not path.startswith(f"{self.encoder.name}/")],
        }

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> BertHead:
        """Rebuild the model, encoder included."""
        config = dict(config)
        frozen = config.pop("frozen", ())
        encoder = keras.saving.deserialize_keras_object(config.pop("encoder"), custom_objects=custom_objects)
        dtype = keras.saving.deserialize_keras_object(config.pop("dtype"), custom_objects=custom_objects)
        model = cls(encoder, dtype=dtype, **config)
        freeze_parts(model, frozen)
        return model

    @classmethod
    def from_pretrained(
        cls,
        dir_or_repo: str | os.PathLike[str],
        *,
        num_labels: int | None = None,
        labels: Sequence[str] | None = None,
        problem_type: ProblemType | None = None,
        revision: str | None = None,
        token: str | None = None,
        cache_dir: str | os.PathLike[str] | None = None,
        local_files_only: bool = False,
        **kwargs: Any,
    ) -> Any:
        """Load a checkpoint of this or of another architecture over the same encoder.

        What the checkpoint does not hold (a pooler, the language model head, the task's own layers, or those
        for another number of labels or other label names than asked for) is newly initialized, and one
        warning lists it.

        Args:
            dir_or_repo: A directory, or a hub repository such as `"google-bert/bert-base-uncased"`, of any
                form that `BertEncoder.from_pretrained` reads.
            num_labels: Number of labels; by default the checkpoint's.
            labels: Names of the labels, instead of `num_labels`.
            problem_type: See the class.
            revision: Branch, tag or commit of the repository.
            token: Hub access token.
            cache_dir: Where downloads are kept.
            local_files_only: Never ask the network.
            **kwargs: Arguments of the class: `dtype`, `name`, `trainable`, `gradient_checkpointing`.

        Raises:
            OSError: No such directory or repository, or a file is not in it.
            CheckpointError: A file is of another model or damaged; a tensor of the encoder is missing, or one
                is unknown or of another shape.
        """
        hub_options = {
            "revision": revision,
            "token": token,
            "cache_dir": cache_dir,
            "local_files_only": local_files_only,
        }
        return load_head(cls, dir_or_repo, hub_options, num_labels, labels, problem_type, **kwargs)

    def save_pretrained(self, directory: str | os.PathLike[str]) -> None:
        """Write `config.json` and `model.safetensors`, which transformers' class of that name reads.

        Args:
            directory: Made if need be. Other files in it stay as they are.
        """
        save_head(self, directory)


def _refuse_texts(x: Any) -> None:
    """Keras' own error about a list of texts names one of its adapters."""
    one = x[0] if isinstance(x, list | tuple) and x else x
    if isinstance(one, str | bytes):
        raise ValueError(
            "fit and predict take word ids, not texts; pass BertTokenizer's or BertPreprocessor's arrays, "
            "put a BertPreprocessor before the model, or ask tasks.classify and the other tasks"
        )


def with_labels(
    config: BertConfig,
    num_labels: int | None,
    labels: Sequence[str] | None,
    problem_type: ProblemType | None,
) -> BertConfig:
    """The configuration with the labels that were asked for.

    Raises:
        ValueError: `labels` and `num_labels` contradict each other, or a label is there twice.
    """
    if labels is not None:
        if num_labels not in (None, len(labels)):
            raise ValueError(f"num_labels is {num_labels} but labels names {len(labels)}; give one of them")
        twice = sorted({label for label in labels if list(labels).count(label) > 1})
        if twice:
            raise ValueError(f"labels names {', '.join(twice)} more than once")
        config = config.replace(id2label=tuple(labels))
    elif num_labels is not None and num_labels != config.num_labels:
        if num_labels < 1:
            raise ValueError(f"num_labels must be at least 1, got {num_labels}")
        config = config.replace(id2label=tuple(f"LABEL_{index}" for index in range(num_labels)))
    return config if problem_type is None else config.replace(problem_type=problem_type)


def cross_entropy() -> keras.losses.Loss:
    """Mean cross-entropy of integer labels; the label -100 is left out, as PyTorch's losses do."""
    return keras.losses.SparseCategoricalCrossentropy(from_logits=True, ignore_class=-100)


def flat(tensor: Any) -> Any:
    """[B, C, L] as [B x C, L]."""
    return ops.reshape(tensor, (-1, ops.shape(tensor)[-1]))
