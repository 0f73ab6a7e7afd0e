"""A `BertPreprocessor` as a reusable SavedModel with the sub-objects of TF-Hub's preprocessors."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tfbert_npu.checkpoints.tfhub import CONFIG_ASSET
from tfbert_npu.preprocess.options import Trimming
from tfbert_npu.preprocess.trimming import trim_pair

SETTINGS = "preprocessor.json"


def write_settings(preprocessor: Any, scratch: Path) -> dict[str, Any]:
    """Write `vocab.txt` and `SETTINGS` of a `BertPreprocessor` to a directory; returns the settings."""
    settings: dict[str, Any] = preprocessor.get_config()
    (scratch / "vocab.txt").write_text(settings.pop("vocabulary"), encoding="utf-8")
    for name in ("name", "trainable", "dtype"):
        settings.pop(name, None)
    (scratch / SETTINGS).write_text(json.dumps(settings, indent=2), encoding="utf-8")
    return settings


def preprocessor_root(preprocessor: Any, scratch: Path) -> tuple[Any, dict[str, Any]]:
    """The root object to save, and its signatures.

    Contract: tensorflow/models, official/nlp/tools/export_tfhub_lib.py, `create_preprocessing`. Vocabulary
    and settings go along as assets, for `pull_from_hub`.

    Args:
        preprocessor: A `BertPreprocessor`.
        scratch: A directory for the assets that stays until the SavedModel is written.
    """
    import tensorflow as tf

    texts = tf.TensorSpec([None], tf.string, "sentences")
    root = _callable(lambda sentences: preprocessor(sentences), texts)
    root.tokenize = _callable(lambda sentences: preprocessor.tokenize(sentences), texts)
    root.tokenize.get_special_tokens_dict = _special_tokens(preprocessor)
    root.tokenize_with_offsets = _callable(
        lambda sentences: list(preprocessor.tokenize_with_offsets(sentences)), texts
    )
    root.tokenize_with_offsets.get_special_tokens_dict = root.tokenize.get_special_tokens_dict
    root.bert_pack_inputs = _packing(preprocessor)
    # Look-up tables that the functions use; without them they could not be saved.
    root.resources = list(preprocessor._graph.tokenizer.resources)
    write_settings(preprocessor, scratch)
    root.vocab_file = tf.saved_model.Asset(os.fspath(scratch / "vocab.txt"))
    setattr(root, CONFIG_ASSET, tf.saved_model.Asset(os.fspath(scratch / SETTINGS)))

    @tf.function(autograph=False, input_signature=[texts])
    def serve(sentences: Any) -> dict[str, Any]:
        return {name: tf.identity(value, name=name) for name, value in preprocessor(sentences).items()}

    return root, {"serving_default": serve}


def _callable(function: Any, spec: Any) -> Any:
    """An object with a traced `__call__` that takes, and ignores, Keras' `training` and `mask`."""
    import tensorflow as tf

    @tf.function(autograph=False)
    def call(inputs: Any, training: bool = False, mask: Any = None) -> Any:
        return function(inputs)

    root = tf.train.Checkpoint()
    root.__call__ = call
    for training in (True, False):
        call.get_concrete_function(spec, training=training, mask=None)
    return root


def _special_tokens(preprocessor: Any) -> Any:
    import tensorflow as tf

    ids = preprocessor.tokenize.get_special_tokens_dict()
    root = tf.train.Checkpoint()
    root.__call__ = tf.function(
        lambda: {name: tf.constant(value, tf.int32) for name, value in ids.items()}, input_signature=[]
    )
    return root


def _packing(preprocessor: Any) -> Any:
    """`bert_pack_inputs`, whose `seq_length` is an argument of the graph and not a number as the layer's."""
    import tensorflow as tf

    @tf.function(autograph=False)
    def call(inputs: Any, seq_length: Any = preprocessor.seq_length) -> Any:
        return _pack(inputs, seq_length, preprocessor.vocabulary, preprocessor.trimming)

    root = tf.train.Checkpoint()
    root.__call__ = call
    for ragged_rank in (1, 2):
        for segments in (1, 2):
            call.get_concrete_function(
                [tf.RaggedTensorSpec([None] * (ragged_rank + 1), tf.int32)] * segments,
                seq_length=tf.TensorSpec([], tf.int32),
            )
    return root


def _pack(segments: Sequence[Any], seq_length: Any, vocabulary: Any, trimming: Trimming) -> dict[str, Any]:
    """One or two ragged int32 [B, pieces] or [B, words, pieces] to int32 [B, seq_length]."""
    import tensorflow as tf

    rows = [segment.merge_dims(1, 2) if segment.shape.rank == 3 else segment for segment in segments]
    lengths = [tf.cast(row.row_lengths(), tf.int32) for row in rows]
    budget = tf.maximum(seq_length - 1 - len(rows), 0)
    if len(rows) == 1:
        kept = [tf.minimum(lengths[0], budget)]
    else:
        kept = list(trim_pair(trimming, lengths[0], lengths[1], budget, tf.minimum, tf.maximum))
    batch = rows[0].nrows(out_type=tf.int32)

    def column(value: int) -> Any:
        return tf.fill([batch, 1], value)

    ids, types = [column(vocabulary.cls_id)], [column(0)]
    for number, (row, length) in enumerate(zip(rows, kept, strict=True)):
        starts = tf.cast(row.row_starts(), tf.int32)
        cut = tf.gather(row.values, tf.ragged.range(starts, starts + length))
        ids += [cut, column(vocabulary.sep_id)]
        types += [tf.ones_like(cut) * number, column(number)]
    shape = tf.stack([-1, seq_length])
    packed = tf.concat(ids, 1)
    return {
        "input_word_ids": packed.to_tensor(vocabulary.pad_id, shape=shape),
        "input_mask": tf.ones_like(packed).to_tensor(0, shape=shape),
        "input_type_ids": tf.concat(types, 1).to_tensor(0, shape=shape),
    }
