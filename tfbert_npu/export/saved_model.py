"""`export_saved_model`: reusable TF2 SavedModels in the form that TF-Hub publishes."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tfbert_npu._failed_writes import explaining_failed_write
from tfbert_npu._files import scratch_directory
from tfbert_npu.artifact.directory import check_target, staged
from tfbert_npu.checkpoints.reading import named_head
from tfbert_npu.checkpoints.tfhub import CONFIG_ASSET, PREPROCESSOR_ASSET
from tfbert_npu.errors import CheckpointError, require
from tfbert_npu.export.delegated import refuse_delegated
from tfbert_npu.export.saved_preprocessor import SETTINGS, preprocessor_root, write_settings
from tfbert_npu.hub.pull import pull_from_hub
from tfbert_npu.repository import local_directory

if TYPE_CHECKING:
    from tfbert_npu.preprocess import BertPreprocessor

ENCODER_INPUTS = ("input_word_ids", "input_mask", "input_type_ids")
MLM_POSITIONS = "masked_lm_positions"


def export_saved_model(
    layer_or_model: Any,
    path: str | os.PathLike[str],
    *,
    vocab_file: str | os.PathLike[str] | None = None,
    do_lower_case: bool | None = None,
    preprocessor: BertPreprocessor | None = None,
    overwrite: bool = False,
) -> None:
    """Write a layer or model as a SavedModel that others call, and train, without this package.

    - A `BertEncoder`: the root takes TF-Hub's three int32 [None, None] inputs and gives its outputs;
      `hub.KerasLayer(path, trainable=True)` trains it in tf_keras. It has `.mlm` where the encoder has a
      masked language model head, `.variables`, `.trainable_variables`, `.regularization_losses`,
      `.vocab_file` and `.do_lower_case`. Signatures: `serving_default`, and `mlm` with the head; hidden
      states are called `encoder_outputs_0`, ... in them.
    - A `BertPreprocessor`: the root takes a string tensor [None]; `.tokenize`,
      `.tokenize_with_offsets`, `.bert_pack_inputs` and their `.get_special_tokens_dict()` as TF-Hub's. A
      process that loads it must import tensorflow_text first.
    - A task head, or a functional Keras model: its `__call__`, with `training`.

    The directory is there whole or not at all.

    Args:
        layer_or_model: What to write, or the directory or hub repository of a checkpoint: its task head if
            `config.json` names one, else its encoder, with its vocabulary. An encoder that runs on an NPU
            must be undelegated first.
        path: Directory to write; it must not exist or be empty.
        vocab_file: The encoder's vocabulary; by default that of the repository it was pulled from.
        do_lower_case: Whether text is lower-cased for it; by default what that repository says.
        preprocessor: The model's, in place of `vocab_file` and `do_lower_case`; its vocabulary and settings
            go along, and `pull_from_hub(path, component="preprocessor")` gives it back.
        overwrite: Replace a directory that is not empty, once the new one is complete.

    Raises:
        FileExistsError: `path` exists and is not an empty directory, and `overwrite` is not set.
        ValueError: Not something that can be exported; the message says why.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> from tfbert_npu import BertConfig, BertEncoder, export_saved_model
        >>> sizes = dict(hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8)
        >>> encoder = BertEncoder(BertConfig(vocab_size=30, **sizes))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     _ = export_saved_model(encoder, f"{folder}/tiny")
        ...     Path(folder, "tiny", "saved_model.pb").is_file()
        True
    """
    tf = require("tensorflow", "tf")
    target = Path(path).expanduser().absolute()
    check_target(target, overwrite=overwrite)
    if isinstance(layer_or_model, (str, os.PathLike)):
        found = pull_parts(layer_or_model)
        layer_or_model, preprocessor = found[0], preprocessor or found[1]
    # Assets are read when the SavedModel is written, so those that are made for it must outlive that.
    with scratch_directory() as scratch, explaining_failed_write(scratch):
        root, signatures = _root(layer_or_model, vocab_file, do_lower_case, preprocessor, Path(scratch))
        with staged(target, overwrite=overwrite) as staging:
            tf.saved_model.save(root, os.fspath(staging), signatures=signatures)


def pull_parts(model: str | os.PathLike[str]) -> tuple[Any, BertPreprocessor | None]:
    """A checkpoint's model and its preprocessor, None where it has no vocabulary.

    Masked language models come as encoders, whose SavedModels have `.mlm`, as TF-Hub's.
    """
    layer = pull_from_hub(model, component="model" if _names_a_head(model) else "auto")
    try:
        return layer, pull_from_hub(model, component="preprocessor")
    except (CheckpointError, FileNotFoundError):
        return layer, None


def _names_a_head(model: str | os.PathLike[str]) -> bool:
    directory = local_directory(model, lambda files: [name for name in files if name == "config.json"])
    try:
        head = named_head(directory / "config.json")
    except (OSError, ValueError):  # another form, or damaged: loading says how
        return False
    return head is not None and not head.mlm


def _root(
    layer: Any,
    vocab_file: str | os.PathLike[str] | None,
    do_lower_case: bool | None,
    preprocessor: BertPreprocessor | None,
    scratch: Path,
) -> tuple[Any, dict[str, Any]]:
    from tfbert_npu.models.encoder import BertEncoder
    from tfbert_npu.models.head import BertHead
    from tfbert_npu.preprocess import BertPreprocessor

    refuse_delegated(layer)
    if isinstance(layer, BertPreprocessor):
        return preprocessor_root(layer, scratch)
    if isinstance(layer, BertHead):
        root, signatures = _head_root(layer)
        layer.config.to_json(scratch / "config.json", layer.architecture)
        encoder = layer.encoder
    elif isinstance(layer, BertEncoder):
        root, signatures = _encoder_root(layer)
        layer.config.to_json(scratch / "config.json")
        encoder = layer
    else:
        return _model_root(layer)
    _add_assets(root, encoder, vocab_file, do_lower_case, preprocessor, scratch)
    return root, signatures


def _encoder_root(encoder: Any) -> tuple[Any, dict[str, Any]]:

    encoder.build()
    inputs = list(ENCODER_INPUTS if encoder.config.type_vocab_size else ENCODER_INPUTS[:2])
    root = _callable_root(encoder, _specs(inputs), list(encoder.variables))
    signatures = {"serving_default": _signature(encoder, _specs(inputs))}
    if encoder.mlm_head is not None:
        specs = _specs([*inputs, MLM_POSITIONS])
        root.mlm = _callable_root(encoder.mlm, specs, list(encoder.mlm.variables))
        signatures["mlm"] = _signature(encoder.mlm, specs)
    return root, signatures


def _add_assets(
    root: Any,
    encoder: Any,
    vocab_file: str | os.PathLike[str] | None,
    do_lower_case: bool | None,
    preprocessor: BertPreprocessor | None,
    scratch: Path,
) -> None:
    """Configuration, vocabulary and casing as TF-Hub's encoders have them; the preprocessor's settings."""
    import tensorflow as tf

    setattr(root, CONFIG_ASSET, tf.saved_model.Asset(os.fspath(scratch / "config.json")))
    vocab_file = vocab_file or getattr(encoder, "vocab_file", None)
    if do_lower_case is None:
        do_lower_case = getattr(encoder, "do_lower_case", None)
    if preprocessor is not None:
        settings = write_settings(preprocessor, scratch)
        vocab_file, do_lower_case = scratch / "vocab.txt", bool(settings["lower_case"])
        setattr(root, PREPROCESSOR_ASSET, tf.saved_model.Asset(os.fspath(scratch / SETTINGS)))
    if vocab_file is not None:
        if not Path(vocab_file).is_file():
            raise ValueError(f"vocab_file {vocab_file} does not exist; pass vocab_file= with the vocabulary")
        root.vocab_file = tf.saved_model.Asset(os.fspath(vocab_file))
    if do_lower_case is not None:
        root.do_lower_case = tf.Variable(do_lower_case, trainable=False, name="do_lower_case")


def _head_root(head: Any) -> tuple[Any, dict[str, Any]]:
    """A task head; its inputs are the encoder's, [B, C, S] for multiple choice."""
    import tensorflow as tf

    head.build()
    inputs = list(ENCODER_INPUTS if head.config.type_vocab_size else ENCODER_INPUTS[:2])
    shape = [None] * (3 if head.spec.choices else 2)
    specs = {name: tf.TensorSpec(shape, tf.int32, name) for name in inputs}
    return _callable_root(head, specs, list(head.variables)), {
        "serving_default": _signature(head, specs, head.spec.outputs[0].name)
    }


def _model_root(model: Any) -> tuple[Any, dict[str, Any]]:
    import tensorflow as tf

    inputs = getattr(model, "input", None)
    if not getattr(model, "built", False) or inputs is None:
        raise ValueError(
            f"{getattr(model, 'name', model)!r} is no BertEncoder, no BertPreprocessor and no functional "
            "Keras model; make one with keras.Model(inputs, outputs)"
        )
    import keras

    specs = keras.tree.map_structure(
        lambda tensor: tf.TensorSpec(
            tensor.shape, keras.backend.standardize_dtype(tensor.dtype), tensor.name
        ),
        inputs,
    )
    root = _callable_root(model, specs, list(model.variables))
    return root, {"serving_default": _signature(model, specs)}


def _specs(names: Sequence[str]) -> dict[str, Any]:
    import tensorflow as tf

    return {name: tf.TensorSpec([None, None], tf.int32, name) for name in names}


def _callable_root(layer: Any, specs: Any, variables: Sequence[Any]) -> Any:
    """An object whose `__call__` is traced for training and for inference, as hub.KerasLayer wants it."""
    import tensorflow as tf

    root = tf.train.Checkpoint()
    root.variables = [v.value for v in variables if not _is_seed(v)]
    # A layer frozen as a whole may be trained by those who load it; a part that was frozen stays so.
    open_ones = [v for v in variables if v.trainable or not layer.trainable]
    root.trainable_variables = [v.value for v in open_ones if not _is_seed(v) and _is_weight(v)]
    root.regularization_losses = []
    # Random state belongs to the graph, not to those who train it.
    root.seed_states = [v.value for v in variables if _is_seed(v)]

    @tf.function(autograph=False)
    def call(inputs: Any, training: bool = False, mask: Any = None) -> Any:
        return layer(inputs, training=training)

    root.__call__ = call
    for training in (True, False):
        call.get_concrete_function(specs, training=training, mask=None)
    return root


def _is_seed(variable: Any) -> bool:
    return "seed_generator" in variable.path


def _is_weight(variable: Any) -> bool:
    # Not `trainable`: a layer that is frozen here may be trained by those who load it.
    return variable.dtype.startswith(("float", "bfloat"))


def _signature(layer: Any, specs: Any, only: str = "outputs") -> Callable[..., Any]:
    """Inference with named inputs and a flat dict of named outputs; `only`: the name of one that has none."""
    import tensorflow as tf

    @tf.function(autograph=False, input_signature=[specs])
    def serve(inputs: Any) -> dict[str, Any]:
        outputs = layer(inputs, training=False)
        if not isinstance(outputs, dict):
            outputs = {only: outputs}
        flat = {}
        for name, value in outputs.items():
            if isinstance(value, (list, tuple)):
                flat.update({f"{name}_{index}": item for index, item in enumerate(value)})
            else:
                flat[name] = value
        return {name: tf.identity(value, name=name) for name, value in flat.items()}

    return serve
