"""`export_saved_model`: reusable TF2 SavedModels in the form that TF-Hub publishes."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from tfbert_npu.checkpoints.tfhub import CONFIG_ASSET
from tfbert_npu.errors import require
from tfbert_npu.export.delegated import refuse_delegated

ENCODER_INPUTS = ("input_word_ids", "input_mask", "input_type_ids")
MLM_POSITIONS = "masked_lm_positions"


def export_saved_model(
    layer_or_model: Any,
    path: str | os.PathLike[str],
    *,
    vocab_file: str | os.PathLike[str] | None = None,
    do_lower_case: bool | None = None,
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

    The directory is there whole or not at all, and an existing one is not touched.

    Args:
        layer_or_model: What to write. An encoder in it that runs on an NPU must be undelegated first.
        path: Directory to write; it must not exist or be empty.
        vocab_file: The encoder's vocabulary; by default that of the repository it was pulled from.
        do_lower_case: Whether text is lower-cased for it; by default what that repository says.

    Raises:
        FileExistsError: `path` exists and is not an empty directory.
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
    target = Path(path)
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise FileExistsError(f"{target} exists; remove it or choose another path")
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{target.name}.", dir=target.parent) as scratch:
        # Assets are read when the SavedModel is written, so those that are made for it must outlive that.
        root, signatures = _root(layer_or_model, vocab_file, do_lower_case, Path(scratch))
        written = Path(scratch, "saved_model")
        tf.saved_model.save(root, os.fspath(written), signatures=signatures)
        if target.is_dir():
            target.rmdir()
        written.rename(target)


def _root(
    layer: Any, vocab_file: Any, do_lower_case: bool | None, scratch: Path
) -> tuple[Any, dict[str, Any]]:
    from tfbert_npu.models.encoder import BertEncoder
    from tfbert_npu.models.head import BertHead
    from tfbert_npu.preprocess import BertPreprocessor

    refuse_delegated(layer)
    if isinstance(layer, BertPreprocessor):
        from tfbert_npu.export.saved_preprocessor import preprocessor_root

        return preprocessor_root(layer, scratch)
    if isinstance(layer, BertHead):
        return _head_root(layer)
    if isinstance(layer, BertEncoder):
        return _encoder_root(layer, vocab_file, do_lower_case, scratch)
    return _model_root(layer)


def _encoder_root(
    encoder: Any, vocab_file: Any, do_lower_case: bool | None, scratch: Path
) -> tuple[Any, dict[str, Any]]:
    import tensorflow as tf

    encoder.build()
    inputs = list(ENCODER_INPUTS if encoder.config.type_vocab_size else ENCODER_INPUTS[:2])
    root = _callable_root(encoder, _specs(inputs), list(encoder.variables))
    signatures = {"serving_default": _signature(encoder, _specs(inputs))}
    if encoder.mlm_head is not None:
        specs = _specs([*inputs, MLM_POSITIONS])
        root.mlm = _callable_root(encoder.mlm, specs, list(encoder.mlm.variables))
        signatures["mlm"] = _signature(encoder.mlm, specs)
    encoder.config.to_json(scratch / "config.json")
    setattr(root, CONFIG_ASSET, tf.saved_model.Asset(os.fspath(scratch / "config.json")))
    vocab_file = vocab_file or getattr(encoder, "vocab_file", None)
    if vocab_file is not None:
        if not Path(vocab_file).is_file():
            raise ValueError(f"vocab_file {vocab_file} does not exist; pass vocab_file= with the vocabulary")
        root.vocab_file = tf.saved_model.Asset(os.fspath(vocab_file))
    if do_lower_case is None:
        do_lower_case = getattr(encoder, "do_lower_case", None)
    if do_lower_case is not None:
        root.do_lower_case = tf.Variable(do_lower_case, trainable=False, name="do_lower_case")
    return root, signatures


def _head_root(head: Any) -> tuple[Any, dict[str, Any]]:
    """A task head; its inputs are the encoder's, [B, C, S] for multiple choice."""
    import tensorflow as tf

    from tfbert_npu.models.heads import BertForMultipleChoice

    head.build()
    inputs = list(ENCODER_INPUTS if head.config.type_vocab_size else ENCODER_INPUTS[:2])
    shape = [None] * (3 if isinstance(head, BertForMultipleChoice) else 2)
    specs = {name: tf.TensorSpec(shape, tf.int32, name) for name in inputs}
    return _callable_root(head, specs, list(head.variables)), {"serving_default": _signature(head, specs)}


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
    root.trainable_variables = [v.value for v in variables if not _is_seed(v) and _is_weight(v)]
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


def _signature(layer: Any, specs: Any) -> Callable[..., Any]:
    """Inference with named inputs and a flat dict of named outputs."""
    import tensorflow as tf

    @tf.function(autograph=False, input_signature=[specs])
    def serve(inputs: Any) -> dict[str, Any]:
        outputs = layer(inputs, training=False)
        if not isinstance(outputs, dict):
            outputs = {"outputs": outputs}
        flat = {}
        for name, value in outputs.items():
            if isinstance(value, (list, tuple)):
                flat.update({f"{name}_{index}": item for index, item in enumerate(value)})
            else:
                flat[name] = value
        return {name: tf.identity(value, name=name) for name, value in flat.items()}

    return serve
