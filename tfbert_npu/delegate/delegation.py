"""The binding of one encoder to one artifact, and the encoder's call through it."""

from __future__ import annotations

import threading
import warnings
import weakref
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from tfbert_npu.delegate import graph
from tfbert_npu.delegate.graph import HIDDEN_STATE
from tfbert_npu.delegate.missing import MissingOutput
from tfbert_npu.delegate.settings import Settings
from tfbert_npu.delegate.source import check_source
from tfbert_npu.errors import ArtifactError
from tfbert_npu.inputs import MASK, MLM_POSITIONS, TYPE_IDS, WORD_IDS, check_inputs
from tfbert_npu.runtime.backend import Arrays
from tfbert_npu.runtime.files import Artifact, artifact_sha256, is_artifact
from tfbert_npu.runtime.load import open_model
from tfbert_npu.runtime.model import NpuModel, Outputs

_INPUT_ORDER = (WORD_IDS, MASK, TYPE_IDS, MLM_POSITIONS)


class Delegation:
    """The binding of one encoder to one artifact.

    It is made at once by `delegate_to`; of a layer that was loaded from a `.keras` file it is made at the
    first call, for only then are the weights there that the artifact must have been made from.
    """

    def __init__(self, encoder: Any, settings: Settings) -> None:
        self.settings = settings
        self._encoder = weakref.ref(encoder)
        self._lock = threading.Lock()
        self._model: NpuModel | None = None
        self._tripwire: Any = None
        self._variables: list[tuple[Any, Any]] = []

    @property
    def model(self) -> NpuModel:
        """The loaded artifact, loaded now if it has not been.

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
            return (
                f"{self.settings.runtime.backend} (bound to {self.settings.artifact_dir} at the first call)"
            )
        return self._model.runs_on

    def close(self) -> None:
        """Free the artifact's contexts."""
        if self._model is not None:
            self._model.close()

    def call(self, inputs: Mapping[str, Any], training: bool | None, *, mlm: bool = False) -> dict[str, Any]:
        """Compute what the layer's own `call` does; the same keys, shapes and dtypes.

        Raises:
            ValueError: `training` is set, or the artifact lacks an output that the call must give.
        """
        if training:
            raise ValueError(
                "the encoder runs on an NPU, which has neither dropout nor gradients; call .undelegate() to "
                "train it, or pass training=False to use it as it is"
            )
        import tensorflow as tf

        model, encoder = self.model, self._alive()
        gives = model.output_names
        wanted = ["pooled_output", "sequence_output"] + ["mlm_logits"] * mlm
        given = [name for name in wanted if name in gives]
        if not given:
            raise ValueError(
                f"{model.directory} gives {', '.join(gives)} only; export it with outputs={tuple(wanted)}"
            )
        if "encoder_outputs" in gives:
            given += [f"{HIDDEN_STATE}{index}" for index in range(encoder.config.num_hidden_layers)]
        tensors = {name: tf.convert_to_tensor(inputs[name]) for name in _INPUT_ORDER if name in inputs}
        if tf.executing_eagerly():
            arrays = {name: tensor.numpy() for name, tensor in tensors.items()}
            values = [tf.convert_to_tensor(value) for value in _flat(model.run(arrays), given)]
        else:
            values = self._in_graph(tensors, given)
        values = graph.without_gradient(self._anchor(encoder), values)
        dtype = encoder.compute_dtype
        if dtype != "float32":
            values = [tf.cast(value, dtype) for value in values]
        return self._arranged(dict(zip(given, values, strict=True)), tensors, mlm)

    def _in_graph(self, tensors: Mapping[str, Any], given: list[str]) -> list[Any]:
        encoder, names = self._encoder, list(tensors)

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
            arrays = check_inputs(arrays, layer.config, mlm=MLM_POSITIONS in arrays)
            outputs = delegation.model.run(arrays)
            lacking = [
                name
                for name in given
                if ("encoder_outputs" if name.startswith(HIDDEN_STATE) else name) not in outputs
            ]
            if lacking:
                raise RuntimeError(
                    f"this graph was traced while the encoder was delegated to an artifact that gives "
                    f"{lacking[0]}, and {delegation.model.directory} does not; trace the function again"
                )
            return _flat(outputs, given)

        if self._tripwire is None:
            self._tripwire = graph.make_tripwire()
        return graph.py_function(compute, tensors, given, self._alive().config, self._tripwire)

    def _arranged(self, named: dict[str, Any], inputs: Mapping[str, Any], mlm: bool) -> dict[str, Any]:
        """The keys of the layer's own call; in the place of what the artifact lacks a `MissingOutput`."""
        encoder, model = self._alive(), self.model

        def missing(name: str) -> MissingOutput:
            shape = graph.output_shape(name, inputs, encoder.config)
            return MissingOutput(name, model.directory, model.output_names, shape, encoder.compute_dtype)

        layers = encoder.config.num_hidden_layers
        if "encoder_outputs" in model.output_names:
            hidden = [named.pop(f"{HIDDEN_STATE}{index}") for index in range(layers)]
            named.setdefault("sequence_output", hidden[-1])
        else:
            if "sequence_output" not in named:
                named["sequence_output"] = missing("sequence_output")
            hidden = [missing("encoder_outputs")] * (layers - 1) + [named["sequence_output"]]
        if "pooled_output" not in named:
            named["pooled_output"] = missing("pooled_output")
        outputs = {"encoder_outputs": hidden, **named}
        if not mlm:
            outputs["default"] = named["pooled_output"]
        return outputs

    def _anchor(self, encoder: Any) -> Any:
        """A variable of the encoder that training would change, or None if it is frozen."""
        if not self._variables:
            parts = [
                part for part in (*encoder.layers, encoder.embeddings, encoder.pooler) if part is not None
            ]
            self._variables = [(part, part.weights[0]) for part in parts]
        # Keras' own flag: TensorFlow's tape watches frozen variables as well.
        return next((variable.value for part, variable in self._variables if part.trainable), None)

    def _bind(self) -> NpuModel:
        import tensorflow as tf

        settings, encoder = self.settings, self._alive()
        if not is_artifact(settings.artifact_dir):
            raise ArtifactError(
                f"{settings.artifact_dir}, on which {encoder.name} was delegated, is missing",
                "copy it there, call .delegate_to() with its new place, or .undelegate()",
            )
        if settings.sha256 not in (None, artifact_sha256(settings.artifact_dir)):
            raise ArtifactError(
                f"{settings.artifact_dir} is not the artifact with which {encoder.name} was saved",
                "call .delegate_to() with the one that you trust, or .undelegate()",
            )
        artifact = Artifact.open(settings.artifact_dir, settings.runtime.file)
        with tf.init_scope():  # the first call may be one that is being traced
            encoder.build()
            check_source(encoder, artifact, allow_other_weights=settings.allow_other_weights)
        fallback = ("tf", self._by_tensorflow) if settings.tf_on_error else None
        model = open_model(artifact, settings.runtime, fallback)
        if not {"pooled_output", "sequence_output", "mlm_logits"} & set(model.output_names):
            model.close()
            raise ArtifactError(
                f"{settings.artifact_dir} holds a {model.manifest.head} model, not an encoder",
                "export the encoder itself, `export_rknn(model.encoder, ...)`",
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
    """The delegation of a layer that is being made from its configuration, see `Settings.to_dict`."""
    options = {name: value for name, value in settings.items() if not name.startswith("artifact_")}
    options.pop("toolchain", None)  # files of 0.1 hold one; a program is nothing for a file to name
    digest = settings.get("artifact_sha256") or ""
    bound = replace(Settings.of(settings["artifact_dir"], options), sha256=digest)
    delegation = Delegation(encoder, bound)
    if not is_artifact(delegation.settings.artifact_dir):
        warnings.warn(
            f"{encoder.name} was saved delegated to {delegation.settings.artifact_dir}, which is missing; "
            "call .delegate_to() with its new place, or .undelegate(), before using it",
            stacklevel=2,
        )
    return delegation


def _flat(outputs: Outputs, given: list[str]) -> list[np.ndarray]:
    return [
        outputs["encoder_outputs"][int(name.removeprefix(HIDDEN_STATE))]
        if name.startswith(HIDDEN_STATE)
        else outputs[name]
        for name in given
    ]
