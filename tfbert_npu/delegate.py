"""An encoder's call, handed to the runtime: the only `tf.py_function` in the package.

Called eagerly the layer goes straight to the runtime. In a graph its call is a py_function, which lives in
the Python process that traced it and nowhere else, so a graph that holds one refuses to be saved.
"""

from __future__ import annotations

import gc
import os
import threading
import warnings
import weakref
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from tfbert_npu.artifact.hashing import state_sha256
from tfbert_npu.artifact.manifest import MANIFEST, Manifest
from tfbert_npu.errors import ArtifactError
from tfbert_npu.layers.inputs import MASK, MLM_POSITIONS, TYPE_IDS, WORD_IDS, check_inputs
from tfbert_npu.runtime.backend import Arrays
from tfbert_npu.runtime.load import Options, open_model
from tfbert_npu.runtime.model import NpuModel, Outputs

OnError = Literal["raise", "tf", "onnx"]

_INPUT_ORDER = (WORD_IDS, MASK, TYPE_IDS, MLM_POSITIONS)
_SAME = ("model_type", "vocab_size", "hidden_size", "num_hidden_layers", "max_position_embeddings")


@dataclass(frozen=True)
class Settings:
    """Arguments of `BertEncoder.delegate_to`, in the form in which a `.keras` file keeps them."""

    artifact_dir: str
    backend: str = "auto"
    cores: Any = "auto"
    truncate: bool = False
    timeout: float | None = 30.0
    lend_timeout: float = 60.0
    on_error: str = "raise"
    retry_after: float = 30.0
    check_finite: bool = False
    warm_up: bool = True
    threads: int | None = None
    toolchain: str | None = None
    allow_other_weights: bool = False

    @classmethod
    def of(cls, artifact_dir: str | os.PathLike[str], options: Mapping[str, Any]) -> Settings:
        """Settings of a caller's arguments.

        Raises:
            TypeError: There is no such option.
            ValueError: A value is unknown or impossible.
        """
        known = {field.name for field in fields(cls)} - {"artifact_dir"}
        unknown = sorted(options.keys() - known)
        if unknown:
            raise TypeError(f"delegate_to has no option {unknown[0]!r}; known are {', '.join(sorted(known))}")
        values = dict(options)
        if values.get("toolchain") is not None:
            values["toolchain"] = os.fspath(values["toolchain"])
        if isinstance(values.get("cores", "auto"), (list, tuple)):
            values["cores"] = list(values["cores"])
        settings = cls(os.path.abspath(os.path.expanduser(artifact_dir)), **values)
        if settings.on_error not in get_args(OnError):
            raise ValueError(f"on_error must be one of {get_args(OnError)}, got {settings.on_error!r}")
        settings.options()  # which checks the rest
        return settings

    def options(self) -> Options:
        """The runtime's part; TensorFlow stands in as a function, of which the runtime knows nothing."""
        values = asdict(self)
        del values["artifact_dir"], values["allow_other_weights"]
        if self.on_error == "tf":
            values["on_error"] = "raise"
        return Options(**values)

    def to_dict(self) -> dict[str, Any]:
        """For a layer's configuration."""
        return asdict(self)


class Delegation:
    """The binding of one encoder to one artefact.

    It is made at once by `delegate_to`; of a layer that was loaded from a `.keras` file it is made at the
    first call, for only then are the weights there that the artefact must have been made from.
    """

    def __init__(self, encoder: Any, settings: Settings) -> None:
        self.settings = settings
        self._encoder = weakref.ref(encoder)
        self._lock = threading.Lock()
        self._model: NpuModel | None = None
        self._tripwire: Any = None
        self._variables: list[tuple[Any, Any]] = []
        self._nothing: dict[tuple[int, ...], Any] = {}

    @property
    def model(self) -> NpuModel:
        """The loaded artefact, loaded now if it has not been.

        Raises:
            ArtifactError: It is missing, or is not this encoder's.
            BackendError: It cannot be run here.
        """
        model = self._model
        if model is not None:
            return model
        with self._lock:
            if self._model is None:
                self._model = self._bind()
            return self._model

    @property
    def runs_on(self) -> str:
        """What computes."""
        if self._model is None:
            return f"{self.settings.backend} (bound to {self.settings.artifact_dir} at the first call)"
        return self._model.runs_on

    def close(self) -> None:
        """Free the artefact's contexts."""
        if self._model is not None:
            self._model.close()

    def call(self, inputs: Mapping[str, Any], training: bool | None, *, mlm: bool = False) -> dict[str, Any]:
        """Compute what the layer's own `call` does; the same keys, shapes and dtypes.

        Raises:
            ValueError: `training` is set, or the artefact lacks an output that the call must give.
        """
        if training:
            raise ValueError(
                "the encoder runs on an NPU, which has neither dropout nor gradients; call .undelegate() to "
                "train it, or pass training=False to use it as it is"
            )
        import tensorflow as tf

        model, encoder = self.model, self._alive()
        wanted = ["pooled_output", "sequence_output"] + ["mlm_logits"] * mlm
        given = [name for name in wanted if name in model.output_names]
        needed = "mlm_logits" if mlm else "pooled_output"
        if needed not in given or (not mlm and "sequence_output" not in given):
            raise ValueError(
                f"{model.directory} gives {', '.join(model.output_names)} only; export it with "
                f"outputs={tuple(wanted)}"
            )
        if "encoder_outputs" in model.output_names:
            layers = encoder.config.num_hidden_layers
            given += [f"encoder_outputs_{index}" for index in range(layers)]
        names = [name for name in _INPUT_ORDER if name in inputs]
        if tf.executing_eagerly():
            run = self._run_eagerly
        else:
            run = self._run_in_graph
        anchor = self._anchor(encoder)
        values = run(tf, anchor, names, given, [tf.convert_to_tensor(inputs[name]) for name in names])
        named = dict(zip(given, values, strict=True))
        return self._arranged(tf, encoder, named, inputs, mlm)

    def _run_eagerly(
        self, tf: Any, anchor: Any, names: list[str], given: list[str], tensors: list[Any]
    ) -> list[Any]:
        arrays = {name: tensor.numpy() for name, tensor in zip(names, tensors, strict=True)}
        flat = [tf.convert_to_tensor(value) for value in _flat(self.model.run(arrays), given)]
        return _without_gradient(tf, anchor, flat)

    def _run_in_graph(
        self, tf: Any, anchor: Any, names: list[str], given: list[str], tensors: list[Any]
    ) -> list[Any]:
        self._refuse_saving(tf)
        encoder = self._encoder

        def compute(*eager: Any) -> list[np.ndarray]:
            layer = encoder()
            delegation = None if layer is None else layer.delegation
            if layer is None or delegation is None:
                raise RuntimeError(
                    "this graph was traced while the encoder was delegated, and it is not any more; trace "
                    "the function again"
                )
            arrays = {name: tensor.numpy() for name, tensor in zip(names, eager, strict=True)}
            # The values were not to be seen when the graph was traced.
            if not _clearly_in_range(arrays, layer.config):
                arrays = check_inputs(arrays, layer.config, mlm=MLM_POSITIONS in arrays)
            return _flat(delegation.model.run(arrays), given)

        flat = tf.py_function(compute, tensors, [tf.float32] * len(given), name="delegated")
        flat = _without_gradient(tf, anchor, flat)
        by_name = dict(zip(names, tensors, strict=True))
        for name, tensor in zip(given, flat, strict=True):
            tensor.set_shape(self._static_shape(name, by_name))
        return flat

    def _static_shape(self, name: str, inputs: Mapping[str, Any]) -> tuple[int | None, ...]:
        config = self._alive().config
        batch, length = inputs[WORD_IDS].shape
        if name == "mlm_logits":
            return (*inputs[MLM_POSITIONS].shape, config.vocab_size)
        if name == "pooled_output":
            return (batch, config.hidden_size)
        return (batch, length, config.hidden_size)

    def _arranged(
        self, tf: Any, encoder: Any, named: dict[str, Any], inputs: Mapping[str, Any], mlm: bool
    ) -> dict[str, Any]:
        """The keys of the layer's own call, for functional models go by the structure.

        Hidden states that the artefact lacks are NaN; in a graph, using one is an error.
        """
        dtype = encoder.compute_dtype
        if dtype != "float32":
            named = {name: tf.cast(value, dtype) for name, value in named.items()}
        layers = encoder.config.num_hidden_layers
        hidden = [named.pop(f"encoder_outputs_{index}", None) for index in range(layers)]
        shape = (*tf.unstack(tf.shape(inputs[WORD_IDS])), encoder.config.hidden_size)
        if "sequence_output" not in named:
            named["sequence_output"] = (
                hidden[-1] if hidden[-1] is not None else self._missing(tf, shape, dtype)
            )
        if "pooled_output" not in named:
            named["pooled_output"] = self._missing(tf, (shape[0], shape[2]), dtype)
        if hidden[-1] is None:
            missing = self._missing(tf, shape, dtype) if layers > 1 else None
            hidden = [missing] * (layers - 1) + [named["sequence_output"]]
        outputs = {"encoder_outputs": hidden, **named}
        if not mlm:
            outputs["default"] = named["pooled_output"]
        return outputs

    def _missing(self, tf: Any, shape: tuple[Any, ...], dtype: str) -> Any:
        if tf.executing_eagerly():
            sizes = tuple(int(size) for size in shape)
            if self._nothing.keys() != {sizes}:
                self._nothing = {sizes: tf.fill(sizes, tf.cast(np.nan, dtype))}
            return self._nothing[sizes]
        # An operator that cannot succeed, and is never run unless something depends on it; of the operators
        # with a message of their own (Assert, CheckNumerics), TensorFlow runs every one.
        hidden_size = tf.raw_ops.PlaceholderWithDefault(input=tf.zeros([2], dtype), shape=[None])
        return tf.reshape(hidden_size[:1], shape, name="not_in_the_artifact_export_it_with_encoder_outputs")

    def _anchor(self, encoder: Any) -> Any:
        """A variable of the encoder that training would change, or None if it is frozen."""
        if not self._variables:
            parts = [
                part for part in (*encoder.layers, encoder.embeddings, encoder.pooler) if part is not None
            ]
            self._variables = [(part, part.weights[0]) for part in parts]
        # Keras' own flag: TensorFlow's tape watches frozen variables as well.
        return next((variable.value for part, variable in self._variables if part.trainable), None)

    def _refuse_saving(self, tf: Any) -> None:
        """Let the graph capture a variable that nothing tracks: TensorFlow then refuses to save it."""
        if self._tripwire is None:
            with tf.init_scope():
                self._tripwire = tf.Variable(
                    0, trainable=False, name="runs_on_an_NPU_undelegate_before_saving"
                )
        tf.raw_ops.VarIsInitializedOp(resource=self._tripwire.handle)

    def _bind(self) -> NpuModel:
        import tensorflow as tf

        settings, encoder = self.settings, self._alive()
        if not (Path(settings.artifact_dir) / MANIFEST).is_file():
            raise ArtifactError(
                f"{settings.artifact_dir}, on which {encoder.name} was delegated, is missing; copy it there, "
                "call .delegate_to() with its new place, or .undelegate()"
            )
        with tf.init_scope():  # the first call may be one that is being traced
            encoder.build()
            check_source(encoder, settings)
        fallback = ("tf", self._by_tensorflow) if settings.on_error == "tf" else None
        model = open_model(settings.artifact_dir, settings.options(), fallback)
        if not {"sequence_output", "mlm_logits"} & set(model.output_names):
            model.close()
            raise ArtifactError(
                f"{settings.artifact_dir} holds a {model.manifest.head} model, not an encoder; export the "
                "encoder itself, `export_rknn(model.encoder, ...)`"
            )
        return model

    def _by_tensorflow(self, inputs: Arrays) -> Outputs:
        """What the runtime would have given, by the layer's own weights."""
        encoder = self._alive()
        if MLM_POSITIONS in inputs and "mlm_logits" in self.model.output_names:
            outputs = encoder.mlm.call_in_tensorflow(dict(inputs))
        else:
            outputs = encoder.call_in_tensorflow(dict(inputs))
        arrays: Outputs = {
            name: np.asarray(value, np.float32)
            for name, value in outputs.items()
            if name != "encoder_outputs"
        }
        arrays["encoder_outputs"] = [np.asarray(value, np.float32) for value in outputs["encoder_outputs"]]
        return arrays

    def _alive(self) -> Any:
        encoder = self._encoder()
        assert encoder is not None  # it is the one whose call this is
        return encoder


def restored(encoder: Any, settings: Mapping[str, Any]) -> Delegation:
    """The delegation of a layer that is being made from its configuration."""
    delegation = Delegation(encoder, Settings(**settings))
    if not (Path(delegation.settings.artifact_dir) / MANIFEST).is_file():
        warnings.warn(
            f"{encoder.name} was saved delegated to {delegation.settings.artifact_dir}, which is missing; "
            "call .delegate_to() with its new place, or .undelegate(), before using it",
            stacklevel=2,
        )
    return delegation


def check_source(encoder: Any, settings: Settings) -> None:
    """Make sure that an artefact was exported from the weights that the encoder holds now.

    Raises:
        ArtifactError: It was not, and `allow_other_weights` is not set; or it is of another architecture.
    """
    from tfbert_npu.config import BertConfig

    directory = Path(settings.artifact_dir)
    manifest = Manifest.read(directory)
    config = BertConfig.from_json(directory / "config.json", source="huggingface")
    for name in _SAME:
        theirs, ours = getattr(config, name), getattr(encoder.config, name)
        if theirs != ours:
            raise ArtifactError(
                f"{directory} has {name}={theirs} and {encoder.name} has {ours}; export this encoder"
            )
    if settings.allow_other_weights or manifest.source_sha256 in _hashes(encoder):
        return
    raise ArtifactError(
        f"{directory} was exported from other weights than {encoder.name} holds now; export it again, or "
        "pass allow_other_weights=True to run those of the artefact"
    )


def _hashes(encoder: Any) -> Iterator[str]:
    """Hashes under which this encoder may have been exported: alone, or with its head."""
    from tfbert_npu.weights.variables import extract, rows_of

    rows = rows_of(encoder)
    alone = [row for row in rows if not row.attribute.startswith("mlm_head.")]
    state = extract(encoder, rows)
    yield state_sha256({row.name: state[row.name] for row in alone})
    if len(alone) < len(rows):
        yield state_sha256(state)


def forget_traces(encoder: Any) -> None:
    """Let every model around the layer trace its compiled functions anew.

    A layer does not know the models that hold it. There are few models and this happens seldom, so they are
    looked for among all objects.
    """
    import keras

    for candidate in gc.get_objects():
        # `type`, not `isinstance`: lazy modules and proxies answer `__class__` by loading something.
        if not issubclass(type(candidate), keras.Model):
            continue
        if any(layer is encoder for layer in _layers(candidate)):
            for name in ("predict_function", "test_function", "train_function"):
                if getattr(candidate, name, None) is not None:
                    setattr(candidate, name, None)


def _layers(model: Any) -> Iterator[Any]:
    waiting, seen = [model], set()
    while waiting:
        layer = waiting.pop()
        if id(layer) in seen:
            continue
        seen.add(id(layer))
        yield layer
        waiting += getattr(layer, "layers", ())
        waiting += getattr(layer, "_layers", ())


def _clearly_in_range(arrays: Mapping[str, np.ndarray], config: Any) -> bool:
    """Whether ids are int32 and in range, at a fraction of the cost of `check_inputs`."""
    limits = {
        WORD_IDS: config.vocab_size,
        TYPE_IDS: config.type_vocab_size,
        MLM_POSITIONS: arrays[WORD_IDS].shape[1],
    }
    return 0 < arrays[WORD_IDS].shape[1] <= config.max_position_embeddings and all(
        # As unsigned numbers the negative ones are large.
        array.dtype == np.int32 and (name == MASK or int(array.view(np.uint32).max(initial=0)) < limits[name])
        for name, array in arrays.items()
    )


def _flat(outputs: Outputs, given: list[str]) -> list[np.ndarray]:
    prefix = "encoder_outputs_"
    return [
        outputs["encoder_outputs"][int(name.removeprefix(prefix))]
        if name.startswith(prefix)
        else outputs[name]
        for name in given
    ]


def _without_gradient(tf: Any, anchor: Any, values: list[Any]) -> list[Any]:
    """The values as if they came from the encoder's weights, with an error for whoever asks for the gradient.

    Without it a gradient would be None, or 0, and training would silently leave the encoder as it is.
    """
    if anchor is None:
        return values

    @tf.custom_gradient
    def passed(weight: Any) -> Any:
        def gradient(*upstream: Any) -> Any:
            raise ValueError(
                "there is no gradient through an encoder that runs on an NPU; call .undelegate() to train "
                "it, or set encoder.trainable = False to train what stands on it"
            )

        return [tf.identity(value) for value in values], gradient

    return list(passed(tf.convert_to_tensor(anchor)))
