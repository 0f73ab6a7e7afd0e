"""Our preprocessor as a SavedModel, in a process with tensorflow_text and without this package."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tfbert_npu import export_saved_model, pull_from_hub

NAMES = ("input_word_ids", "input_mask", "input_type_ids")

WITHOUT_US = """
import sys, json, base64
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "tfbert_npu":
            raise ImportError("this process must not import tfbert_npu")
sys.meta_path.insert(0, Refuse())
import numpy as np
import tensorflow as tf
import tensorflow_text
out = {}
"""

PUBLISHED = """
rows = [base64.b64decode(text) for text in json.load(open({texts!r}))["texts"]]
rows = tf.constant(rows[:{n_valid}])
model = tf.saved_model.load({model!r})

def keep(name, value):
    if isinstance(value, dict):
        for key, part in value.items():
            out[f"{{name}}/{{key}}"] = part
    elif isinstance(value, tf.RaggedTensor):
        out[f"{{name}}/flat"] = value.flat_values
        for depth, splits in enumerate(value.nested_row_splits):
            out[f"{{name}}/splits{{depth}}"] = splits
    else:
        for place, part in enumerate(value):
            keep(f"{{name}}/{{place}}", part)

keep("root", model(rows))
keep("tokenize", model.tokenize(rows))
keep("tokenize_with_offsets", model.tokenize_with_offsets(rows))
keep("special", model.tokenize.get_special_tokens_dict())
first = model.tokenize(rows)
second = tf.reverse(first, [0])
for length in (8, 16, 64, 128):
    keep(f"pack1_{{length}}", model.bert_pack_inputs([first], seq_length=tf.constant(length)))
    keep(f"pack2_{{length}}", model.bert_pack_inputs([first, second], seq_length=tf.constant(length)))
flat = [part.merge_dims(1, 2) for part in (first, second)]
keep("pack2_rank2_16", model.bert_pack_inputs(flat, seq_length=tf.constant(16)))
keep("pack2_default", model.bert_pack_inputs([first, second]))
out["served"] = model.signatures["serving_default"](sentences=rows)["input_word_ids"]
"""

IN_TF_KERAS = """
import tensorflow_hub as hub, tf_keras
text = tf_keras.Input(shape=(), dtype=tf.string)
loaded = tf.saved_model.load({model!r})
inputs = hub.KerasLayer(loaded)(text)
encoded = hub.KerasLayer({encoder!r}, trainable=True)(inputs)
model = tf_keras.Model(text, encoded["pooled_output"])
out["pooled"] = model(tf.constant(["some text here", "More"]))
tokens = hub.KerasLayer(loaded.tokenize)(text)
packed = hub.KerasLayer(loaded.bert_pack_inputs, arguments=dict(seq_length=16))([tokens])
out["packed"] = tf_keras.Model(text, packed)(tf.constant(["some text here"]))["input_word_ids"]
"""


def run_alone(code: str, tmp_path: Path, **environment: str) -> dict[str, np.ndarray]:
    result = tmp_path / "result.npz"
    script = f"{WITHOUT_US}{code}\nnp.savez({str(result)!r}, **out)\n"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, env={**os.environ, **environment}
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return dict(np.load(result))


@pytest.fixture(scope="module")
def exported(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("exported") / "preprocess"
    export_saved_model(pull_from_hub(shared / "reference" / "preprocess"), path)
    return path


def test_it_gives_what_the_published_one_gives(exported: Path, shared: Path, tmp_path: Path) -> None:
    texts = shared / "reference" / "preprocess_texts.json"
    n_valid = json.loads(texts.read_text())["n_valid"]
    code = PUBLISHED.format(texts=str(texts), model=str(exported), n_valid=n_valid)
    out = run_alone(code, tmp_path)
    expected = np.load(shared / "reference" / "preprocess_io.npz")
    names = [name for name in expected if not name.partition("/")[0].endswith(("_all", "pack_pyint"))]
    for name in names:
        np.testing.assert_array_equal(out[name], expected[name], err_msg=name)
        assert out[name].dtype == expected[name].dtype, name
    np.testing.assert_array_equal(out["served"], expected["root/input_word_ids"])


@pytest.mark.slow
def test_in_tf_keras_with_an_exported_encoder(exported: Path, shared: Path, tmp_path: Path) -> None:
    pytest.importorskip("tensorflow_hub", reason="needs tensorflow-hub, tf-keras and setuptools<82")
    import tensorflow as tf

    encoder = pull_from_hub(shared / "reference" / "encoder")
    export_saved_model(encoder, tmp_path / "encoder")
    code = IN_TF_KERAS.format(model=str(exported), encoder=str(tmp_path / "encoder"))
    out = run_alone(code, tmp_path, TF_USE_LEGACY_KERAS="1")
    preprocessor = pull_from_hub(shared / "reference" / "preprocess")
    inputs = preprocessor(tf.constant(["some text here", "More"]))
    np.testing.assert_allclose(out["pooled"], encoder(inputs)["pooled_output"], atol=1e-5)
    np.testing.assert_array_equal(out["packed"], inputs["input_word_ids"][:1, :16])


def test_it_is_pulled_back_as_it_was(exported: Path, shared: Path) -> None:
    original = pull_from_hub(shared / "reference" / "preprocess")
    again = pull_from_hub(exported)
    assert again.vocabulary == original.vocabulary
    assert again.options == original.options
    assert again.seq_length == original.seq_length


def test_the_text_bytes_are_what_the_reference_says(shared: Path) -> None:
    content = json.loads((shared / "reference" / "preprocess_texts.json").read_text())
    assert len([base64.b64decode(row) for row in content["texts"]]) >= content["n_valid"]
