"""A foreign SavedModel as a Keras 3 layer, for those who trust it: its own graph runs."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import keras

from tfbert_npu.checkpoints.saved_model import SAVED_MODEL, SavedModel, read_saved_model
from tfbert_npu.errors import CheckpointError, require

_ALLOWED: ContextVar[dict[Path, tuple[str, ...]]] = ContextVar("allowed", default={})  # noqa: B039


@keras.saving.register_keras_serializable(package="tfbert_npu")
class TrustedSavedModel(keras.layers.Layer):
    """The root object of a TF2 SavedModel, called as a layer.

    What `hub.KerasLayer` was in Keras 2: every tf.Variable of the SavedModel is a weight of the layer,
    `training` is passed on where the model takes it, and its regularization losses are added. Inputs and
    outputs are those of the SavedModel's `__call__`.

    A `.keras` file holds the weights and the path of the directory, not its graph, and grants no trust: load
    it inside of `allow_trusted(directory)`. The directory must be where it was and its graph the same, byte
    for byte.

    Args:
        directory: Holds `saved_model.pb`.
        allow_ops: Names of operations that run code or touch files and that are all the same allowed.
        sha256: Digest that `saved_model.pb` must have; by default any.

    Raises:
        CheckpointError: The SavedModel is damaged, holds dangerous operations, or cannot be called.
    """

    def __init__(
        self,
        directory: str | os.PathLike[str],
        allow_ops: Sequence[str] = (),
        sha256: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.directory = Path(directory)
        self.allow_ops = tuple(allow_ops)
        model = read_saved_model(self.directory)
        self._sha256 = hashlib.sha256((self.directory / SAVED_MODEL).read_bytes()).hexdigest()
        if sha256 not in (None, self._sha256):
            raise CheckpointError(
                f"{self.directory} holds another SavedModel than this layer was made from", "pull it again"
            )
        model.refuse_dangerous_ops(self.allow_ops)
        self._takes_training = "training" in _arguments(model)
        self._root = _load(self.directory)
        if not callable(self._root):
            raise CheckpointError(
                f"{self.directory} cannot be called: its root object has no __call__, only signatures"
            )
        for variable, trainable in _variables(self._root):
            self._adopt(variable, trainable)
        self.built = True

    def _adopt(self, variable: Any, trainable: bool) -> None:
        """Make a weight of the layer whose value is the SavedModel's own tf.Variable."""
        weight = keras.Variable(
            variable,
            dtype=variable.dtype.name,
            trainable=trainable,
            name=variable.name.partition(":")[0].replace("/", "_"),
        )
        weight._value = variable  # versions of Keras differ in whether they copy it
        self._track_variable(weight)

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        """Call the SavedModel's root."""
        keywords = {"training": bool(training)} if self._takes_training else {}
        outputs = self._root(inputs, **keywords)
        for loss in getattr(self._root, "regularization_losses", ()):
            self.add_loss(loss())
        return outputs

    def get_config(self) -> dict[str, Any]:
        """What `from_config` finds the SavedModel again by; trust in it has to be given again."""
        return {
            **super().get_config(),
            "directory": os.fspath(self.directory),
            "sha256": self._sha256,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> TrustedSavedModel:
        """Load the SavedModel again, inside of `allow_trusted`.

        Raises:
            CheckpointError: The directory is not allowed; nothing in it has been read.
        """
        config = dict(config)
        config.pop("allow_ops", None)  # a file cannot allow itself anything
        directory = Path(config["directory"])
        allowed = _ALLOWED.get().get(directory.resolve())
        if allowed is None:
            raise CheckpointError(
                f"the file asks for the foreign SavedModel {directory}, whose graph would run",
                "if you trust it, load the file inside of `with "
                f"tfbert_npu.hub.trusted.allow_trusted({os.fspath(directory)!r}):`",
            )
        # Keras' own method would wrap what the constructor raises.
        return cls(**config, allow_ops=allowed)


@contextmanager
def allow_trusted(*directories: str | os.PathLike[str], allow_ops: Sequence[str] = ()) -> Iterator[None]:
    """Trust SavedModels that `.keras` files name, while the block runs.

    Args:
        *directories: The SavedModels' directories.
        allow_ops: See `TrustedSavedModel`.

    Example:
        >>> import keras
        >>> from tfbert_npu.hub.trusted import allow_trusted
        >>> with allow_trusted("use-4"):  # doctest: +SKIP
        ...     model = keras.models.load_model("model.keras")
    """
    allowed = {Path(directory).resolve(): tuple(allow_ops) for directory in directories}
    token = _ALLOWED.set({**_ALLOWED.get(), **allowed})
    try:
        yield
    finally:
        _ALLOWED.reset(token)


def _variables(root: Any) -> list[tuple[Any, bool]]:
    """The variables of a loaded SavedModel and whether each is to be trained.

    Keras models and TF-Hub's modules list them; a tf.Module's are those that its traces use.
    """
    if hasattr(root, "variables"):
        listed = list(root.variables)
        trained = {id(v) for v in getattr(root, "trainable_variables", ())}
    else:
        traces = root.__call__.concrete_functions
        listed = list({id(v): v for trace in traces for v in trace.variables}.values())
        trained = {id(v) for v in listed if v.trainable}
    return [(variable, id(variable) in trained) for variable in listed]


def _load(directory: Path) -> Any:
    require("tensorflow_text", "tf")  # registers the operations of preprocessors
    import tensorflow as tf

    try:
        return tf.saved_model.load(os.fspath(directory))
    except (tf.errors.OpError, OSError, RuntimeError, ValueError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0][:300]
        raise CheckpointError(f"{directory} cannot be loaded ({reason})", "download it again") from error


def _arguments(model: SavedModel) -> set[str]:
    """Names of the arguments of the root's `__call__`."""
    call = model.child(0, "__call__")
    if call is None or model.nodes[call].WhichOneof("kind") != "function":
        return set()
    fields = model.nodes[call].function.function_spec.fullargspec.named_tuple_value.values
    return {
        value.string_value
        for pair in fields
        if pair.key in ("args", "kwonlyargs")
        for value in pair.value.list_value.values
    }
