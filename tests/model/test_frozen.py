"""Parts of an encoder that are frozen stay so: in a .keras file, in from_config, in a SavedModel."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from tests.tiny_bert import config
from tfbert_npu import BertEncoder, BertForSequenceClassification, export_saved_model

FREEZE = {
    "embeddings_and_a_layer": lambda encoder: (encoder.embeddings, encoder.layers[0]),
    "the_last_layer_and_the_pooler": lambda encoder: (encoder.layers[-1], encoder.pooler),
    "an_attention": lambda encoder: (encoder.layers[1].attention,),
}
NAMES = ("input_word_ids", "input_mask", "input_type_ids")
PROGRAM = """
import json, sys
import keras, tfbert_npu
model = keras.models.load_model(sys.argv[1])
names = sorted(v.path.split("/", 1)[1] for v in model.trainable_variables)
print(json.dumps([names, int(model.optimizer.iterations), len(model.optimizer.variables)]))
"""


def frozen_encoder(which: str) -> BertEncoder:
    keras.utils.set_random_seed(0)
    encoder = BertEncoder(config())
    encoder.build()
    for part in FREEZE[which](encoder):
        part.trainable = False
    return encoder


def functional(encoder: BertEncoder) -> keras.Model:
    inputs = {name: keras.Input((8,), dtype="int32", name=name) for name in NAMES}
    return keras.Model(inputs, keras.layers.Dense(2)(encoder(inputs)["pooled_output"]))


def batch() -> dict[str, np.ndarray]:
    return {name: np.ones((4, 8), "int32") for name in NAMES}


@pytest.mark.parametrize("which", FREEZE)
@pytest.mark.parametrize("kind", ["functional", "head"])
def test_a_keras_file_in_a_new_process(tmp_path: Path, which: str, kind: str) -> None:
    encoder = frozen_encoder(which)
    model: Any = (
        functional(encoder) if kind == "functional" else BertForSequenceClassification(encoder, num_labels=2)
    )
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    before = [np.array(v) for part in FREEZE[which](encoder) for v in part.variables if "seed" not in v.path]
    model.fit(batch(), np.zeros(4, "int32"), epochs=3, batch_size=2, verbose=0)
    after = [np.array(v) for part in FREEZE[which](encoder) for v in part.variables if "seed" not in v.path]
    assert all(np.array_equal(a, b) for a, b in zip(before, after, strict=True))
    model.save(tmp_path / "m.keras")
    command = [sys.executable, "-c", PROGRAM, str(tmp_path / "m.keras")]
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    names, iterations, slots = json.loads(run.stdout.splitlines()[-1])
    assert len(names) == len(model.trainable_variables)
    assert (iterations, slots) == (6, len(model.optimizer.variables))


@pytest.mark.parametrize("which", FREEZE)
def test_from_config_built_and_not(which: str) -> None:
    encoder = frozen_encoder(which)
    again = BertEncoder.from_config(encoder.get_config())
    assert again.get_config()["frozen"] == sorted(encoder.get_config()["frozen"])
    again.build()
    assert len(again.trainable_variables) == len(encoder.trainable_variables) < len(encoder.weights)
    again.trainable = False
    again.trainable = True  # as Keras has it: everything
    assert again.get_config()["frozen"] == []


def test_what_is_frozen_before_it_is_built() -> None:
    encoder = BertEncoder(config())
    encoder.embeddings.trainable = False
    encoder.build()
    assert not any("embeddings" in v.path for v in encoder.trainable_variables)


def test_a_whole_encoder(tmp_path: Path) -> None:
    encoder = BertEncoder(config(), trainable=False)
    encoder.build()
    again = BertEncoder.from_config(encoder.get_config())
    again.build()
    assert not again.trainable
    assert not again.trainable_variables


@pytest.mark.parametrize("which", ["embeddings_and_a_layer", "an_attention"])
def test_a_saved_model_trains_the_rest(tmp_path: Path, which: str) -> None:
    import tensorflow as tf

    encoder = frozen_encoder(which)
    export_saved_model(encoder, tmp_path / "m")
    loaded = tf.saved_model.load(str(tmp_path / "m"))
    assert len(loaded.trainable_variables) == len(encoder.trainable_variables)
    encoder.trainable = False  # frozen as a whole: those who load it decide
    export_saved_model(encoder, tmp_path / "whole")
    whole = tf.saved_model.load(str(tmp_path / "whole"))
    assert len(whole.trainable_variables) == len(encoder.weights)


def test_a_part_that_is_not_there() -> None:
    with pytest.raises(ValueError, match=r"frozen names 'layer_9'; parts of .* are embeddings, layer_0"):
        BertEncoder(config(), frozen=["layer_9"]).build()
