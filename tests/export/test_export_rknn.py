"""`export_rknn` with the real rknn-toolkit2: figures, every head and platform, and failures."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time

import numpy as np
import psutil
import pytest

from tfbert_npu.artifact.manifest import Manifest
from tfbert_npu.artifact.rknn_file import read_rknn
from tfbert_npu.export.checks import StrictError
from tfbert_npu.export.gate import GateError
from tfbert_npu.export.rknn import export_rknn
from tfbert_npu.export.source import ExportSource, source_of
from tfbert_npu.heads import head_named
from tfbert_npu.onnx.running import run_onnx
from tfbert_npu.platforms import PLATFORMS, platform_named
from tfbert_npu.quantize.recipe import Recipe
from tfbert_npu.rknn.worker import Limits, VendorSession, WorkerError
from tfbert_npu.runtime.files import Artifact
from tfbert_npu.runtime.load import Options
from tfbert_npu.runtime.verify import verify

from .models import agreement, bert, distilbert

pytestmark = pytest.mark.slow

# Sizes at which the compiler treats products as it does those of real models, and which it compiles fast.
WIDE = {
    "vocab_size": 500,
    "hidden_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 512,
    "max_position_embeddings": 64,
    "initializer_range": 0.05,
}
WIDE_DISTIL = {
    "vocab_size": 500,
    "dim": 128,
    "n_layers": 2,
    "n_heads": 4,
    "hidden_dim": 512,
    "max_position_embeddings": 64,
    "initializer_range": 0.05,
}


@pytest.fixture(autouse=True)
def _toolchain(toolchain):
    """Every test here needs one."""


@pytest.fixture(scope="module")
def small():
    config, state, _ = bert("BertModel", **WIDE)
    return ExportSource(config, state)


def test_minilm_with_embeddings_inside(minilm, tmp_path):
    manifest = export_rknn(minilm, tmp_path / "m")
    assert {name: one["cosine"] > 0.99999 for name, one in manifest.parity.items()} == {
        "pooled_output": True,
        "sequence_output": True,
    }
    cost = manifest.cost["1x128"]
    assert cost["cycles"] == 2_654_208 + 12_533
    assert cost["npu_ops"] <= 116
    assert cost["cpu_ops"] <= 9
    assert manifest.build["warnings"] == []
    assert manifest.gate["reference"] == "tensorflow"
    again = Manifest.read(tmp_path / "m")
    again.check_files(tmp_path / "m")
    header = read_rknn(tmp_path / "m" / "model.rknn")
    assert header.platforms == ("rk3588",)
    assert [(spec.name, spec.dtype) for spec in header.inputs] == [
        ("input_word_ids", "int32"),
        ("input_mask", "int32"),
        ("input_type_ids", "int32"),
    ]
    assert json.loads(header.custom_string)["source_sha256"] == manifest.source_sha256
    block = json.loads((tmp_path / "m" / "config.json").read_text())["rknn"]["model.rknn"]
    assert (block["batch_size"], block["max_seq_length"]) == (1, 128)
    assert block["model_input_names"] == ["input_ids", "attention_mask", "token_type_ids"]
    assert "0.99999" in (tmp_path / "m" / "README.md").read_text()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["m"]
    for backend in ("simulator", "onnx"):
        found = verify(Artifact.open(tmp_path / "m"), Options(backend=backend))
        assert found.passed, found.problems
        assert len(found.verdicts) >= 2


def test_packed_minilm(minilm, tmp_path):
    """200 texts in rows of 128 tokens: fused attention, and each text's vectors as it has them alone."""
    from tfbert_npu import BertEncoder, BertTokenizer, load_npu
    from tfbert_npu.quantize.calibration import default_texts

    sentences = default_texts()  # in many languages

    manifest = export_rknn(minilm, tmp_path / "m", packed=True, tokenizer=minilm)
    alone = export_rknn(minilm, tmp_path / "alone", embeddings="host", tokenizer=minilm)
    cost, single = manifest.cost["1x128"], alone.cost["1x128"]
    assert cost["npu_ops"] + cost["cpu_ops"] <= single["npu_ops"] + single["cpu_ops"] + 1
    assert manifest.build["warnings"] == []  # it would name attention that stays unfused
    rows = json.loads((tmp_path / "m" / "cost.json").read_text())["1x128"]
    assert [row["kind"] for row in rows].count("exSDPAttention") == 6
    texts = [f"{sentences[n % len(sentences)]} {'and more ' * (n % 7)}" for n in range(200)]
    inputs = BertTokenizer.from_pretrained(minilm)(texts, seq_length=128)
    expected = BertEncoder.from_pretrained(minilm)(inputs)
    for backend in ("simulator", "onnx"):
        with load_npu(tmp_path / "m", backend) as model:
            got = model(inputs)
            assert model.stats().computed_tokens < 1.1 * model.stats().tokens
        for name in ("pooled_output", "sequence_output"):
            wanted = np.asarray(expected[name])
            for row, mask in enumerate(inputs["input_mask"]):
                real = mask == 1 if wanted.ndim == 3 else slice(None)
                a, b = got[name][row][real].ravel(), wanted[row][real].ravel()
                assert a @ b / np.linalg.norm(a) / np.linalg.norm(b) >= 0.99999
                if backend == "onnx":
                    # The tables on the host are float16.
                    np.testing.assert_allclose(a, b, atol=5e-3)
    assert verify(Artifact.open(tmp_path / "m"), Options(backend="simulator")).passed


@pytest.mark.parametrize(
    "options",
    [
        {"precision": "w8a8", "shapes": ((1, 32),)},
        {"layout": "static", "shapes": ((1, 16), (2, 32)), "embeddings": "host"},
        {"outputs": ["encoder_outputs"], "shapes": ((1, 16), (1, 32))},
    ],
    ids=["int8", "static-host-batch", "hidden"],
)
def test_what_was_exported_verifies_in_the_simulator(small, tmp_path, options):
    calibration = None
    if "precision" in options:
        rng = np.random.default_rng(0)
        ids = rng.integers(0, 500, (8, 32)).astype(np.int32)
        batch = {"input_word_ids": ids, "input_mask": np.ones_like(ids), "input_type_ids": np.zeros_like(ids)}
        calibration = [batch]
    export_rknn(small, tmp_path / "m", calibration=calibration, **options)
    found = verify(Artifact.open(tmp_path / "m"), Options(backend="simulator"))
    assert found.passed, found.problems
    assert {verdict.shape for verdict in found.verdicts} == set(options["shapes"])


def test_the_encoder_of_a_trained_head_is_delegated(small, tmp_path):
    import keras

    from tfbert_npu import BertEncoder, BertForSequenceClassification
    from tfbert_npu.errors import ArtifactError

    keras.utils.set_random_seed(0)
    model = BertForSequenceClassification(BertEncoder(small.config), labels=["no", "yes"])
    model.build()
    model.save_pretrained(tmp_path / "trained")
    export_rknn(tmp_path / "trained", tmp_path / "m", shapes=((1, 32),), head="encoder")
    encoder = BertEncoder.from_pretrained(tmp_path / "trained").delegate_to(tmp_path / "m", "onnx")
    assert encoder.runs_on == "onnx"
    encoder.undelegate()
    encoder.pooler.bias.assign(encoder.pooler.bias + 1e-6)
    with pytest.raises(ArtifactError, match="other weights than"):
        encoder.delegate_to(tmp_path / "m", "onnx")


def test_minilm_with_embeddings_on_the_host(minilm, tmp_path):
    manifest = export_rknn(minilm, tmp_path / "m", embeddings="host")
    assert all(one["cosine"] > 0.99999 for one in manifest.parity.values())
    cost = manifest.cost["1x128"]
    assert cost["npu_ops"] <= 112
    assert cost["mb_moved"] < 36.45
    rows = json.loads((tmp_path / "m" / "cost.json").read_text())["1x128"]
    on_cpu = {row["kind"] for row in rows if row["target"] == "CPU"}
    assert on_cpu == {"InputOperator", "OutputOperator"}
    assert (tmp_path / "m" / "model.rknn").stat().st_size < 23.1e6


def test_one_dynamic_file_holds_the_weights_once_and_equals_the_static_files(minilm, tmp_path):
    shapes = ((1, 16), (1, 32), (1, 64), (1, 128))
    dynamic = export_rknn(minilm, tmp_path / "dynamic", shapes=shapes)
    static = export_rknn(minilm, tmp_path / "static", shapes=((1, 16), (1, 128)), layout="static")
    one, (short, long) = dynamic.rknn_files[0], static.rknn_files
    assert (short.path, long.path) == ("model_b1_s16.rknn", "model_b1_s128.rknn")
    assert one.size <= 1.15 * long.size
    assert one.shapes == shapes
    assert read_rknn(tmp_path / "dynamic" / one.path).input_shapes == tuple(
        ((1, length),) * 3 for length in (128, 64, 32, 16)
    )
    for shape in ("1x16", "1x128"):
        for name in ("pooled_output", "sequence_output"):
            found = dynamic.gate["shapes"][shape][name]["cosine"]
            assert found == pytest.approx(static.gate["shapes"][shape][name]["cosine"], abs=2e-6)
        assert dynamic.cost[shape]["cycles"] == pytest.approx(static.cost[shape]["cycles"], rel=0.02)


def test_a_wide_feed_forward_block_is_sliced_in_a_dynamic_file(tmp_path):
    config, state, _ = bert(
        "BertModel", **{**WIDE, "intermediate_size": 4096, "max_position_embeddings": 128}
    )
    shapes = ((1, 64), (1, 128))
    manifest = export_rknn(ExportSource(config, state), tmp_path / "m", shapes=shapes)
    assert manifest.build["ffn_slices"] == 8


HEADS = [
    ("BertForMaskedLM", "masked_lm", {}, {}),
    ("BertForMaskedLM", "masked_lm", {}, {"masked_positions": 5}),
    ("BertForTokenClassification", "token_classification", {"num_labels": 9}, {}),
    ("BertForSequenceClassification", "sequence_classification", {"num_labels": 3}, {}),
    ("BertForQuestionAnswering", "question_answering", {}, {}),
    ("BertForPreTraining", "pretraining", {}, {}),
    ("BertLMHeadModel", "causal_lm", {"is_decoder": True}, {}),
    ("BertForMultipleChoice", "multiple_choice", {}, {"shapes": ((4, 32),)}),
    ("DistilBertForSequenceClassification", "sequence_classification", {"num_labels": 3}, {}),
    ("DistilBertForTokenClassification", "token_classification", {"num_labels": 9}, {}),
]


@pytest.mark.parametrize(("class_name", "head", "changes", "options"), HEADS)
def test_every_head_passes_the_gate(tmp_path, class_name, head, changes, options):
    if class_name.startswith("Distil"):
        config, state, _ = distilbert(class_name, **WIDE_DISTIL, **changes)
    else:
        config, state, _ = bert(class_name, **WIDE, **changes)
    source = ExportSource(config, state, head_named(head))
    manifest = export_rknn(source, tmp_path / "m", **{"shapes": ((1, 32),), **options})
    assert manifest.head == head
    assert all(one["cosine"] > 0.9999 for one in manifest.parity.values())


@pytest.mark.parametrize("hidden_act", ["gelu", "gelu_new", "relu"])
def test_hidden_states_of_every_layer_pass(tmp_path, hidden_act):
    config, state, _ = bert("BertModel", hidden_act=hidden_act, **WIDE)
    outputs = ["encoder_outputs", "pooled_output"]
    manifest = export_rknn(ExportSource(config, state), tmp_path / "m", shapes=((1, 32),), outputs=outputs)
    assert list(manifest.parity) == ["encoder_outputs_0", "encoder_outputs_1", "pooled_output"]


@pytest.mark.parametrize("platform", PLATFORMS)
def test_every_platform_builds(small, tmp_path, platform):
    manifest = export_rknn(small, tmp_path / "m", platform, shapes=((1, 64),))
    # The compiler's count of products is exact, so the rate in the table of platforms is checked as well.
    assert 0 < manifest.cost["1x64"]["utilisation"] <= 1
    fused = platform not in ("rk3566", "rk3568")
    assert bool(manifest.build["warnings"]) is not fused


@pytest.mark.parametrize("level", [0, 1, 2])
def test_every_optimization_level_passes(small, tmp_path, level):
    manifest = export_rknn(small, tmp_path / "m", shapes=((1, 32),), optimization_level=level)
    assert manifest.build["optimization_level"] == level


def test_the_weights_of_rk_transformers_agree_with_their_own_onnx(shared, tmp_path):
    import onnx

    from tfbert_npu.config import BertConfig

    folder = shared / "data/rknn/rk_transformers_random_bert"
    model = onnx.load(folder / "model.onnx")
    config = BertConfig.from_json(folder / "config.json")
    state = state_of_optimum(model, config)
    golden = np.load(shared / "data/golden/random_bert_onnxruntime/ort.npz")
    manifest = export_rknn(
        ExportSource(config, state), tmp_path / "m", shapes=((1, 32),), outputs=["sequence_output"]
    )
    assert manifest.parity["sequence_output"]["cosine"] > 0.9999
    for case in (0, 1):
        mask = golden[f"{case}.attention_mask"].astype(np.int32)
        inputs = {
            "input_word_ids": golden[f"{case}.input_ids"].astype(np.int32),
            "input_mask": mask,
            "input_type_ids": golden[f"{case}.token_type_ids"].astype(np.int32),
        }
        (got,) = run_onnx(tmp_path / "m" / "model.onnx", [inputs])
        one = agreement(got["sequence_output"], golden[f"{case}.last_hidden_state"], mask)
        assert one.max_abs < 1e-5
        with VendorSession(_found(), tmp_path / "log") as session:
            session.build(
                tmp_path / "m" / "model.onnx",
                {"target_platform": "rk3588"},
                load={"inputs": list(inputs), "input_size_list": [[1, 32]] * 3},
            )
            (simulated,) = session.infer(list(inputs.values()))
        assert agreement(simulated, golden[f"{case}.last_hidden_state"], mask).cosine > 0.9999


@pytest.mark.parametrize("platform", ["rk3588", "rk3562"])
def test_int8_is_built_and_its_cost_counted_against_the_int8_rate(minilm, tmp_path, platform):
    manifest = export_rknn(
        minilm, tmp_path / "m", platform, precision="w8a8", recipe=Recipe(), embeddings="host"
    )
    fp16 = 2_654_208 * 512 / platform_named(platform).fp16_macs
    assert manifest.cost["1x128"]["npu_cycles"] < 0.6 * fp16
    assert 0.7 < manifest.cost["1x128"]["utilisation"] <= 1
    assert manifest.precision == "w8a8"


@pytest.mark.parametrize(("platform", "precision"), [("rk3566", "w8a16"), ("rk3588", "w4a16")])
def test_a_precision_that_the_soc_lacks_is_refused(minilm, tmp_path, platform, precision):
    with pytest.raises(ValueError, match=f"{precision}' is for rk35.*; on {platform} use fp16 or w8a8"):
        export_rknn(minilm, tmp_path / "m", platform, precision=precision)
    assert not (tmp_path / "m").exists()


def test_a_functional_keras_model_passes_with_its_encoder_fused(tmp_path):
    import keras

    from tfbert_npu.config import BertConfig
    from tfbert_npu.models.encoder import BertEncoder

    config = BertConfig(**WIDE)
    names = ("input_word_ids", "input_mask", "input_type_ids")
    inputs = {name: keras.Input((None,), dtype="int32", name=name) for name in names}
    outputs = BertEncoder(config)(inputs)
    x = keras.layers.Dense(64, activation="relu")(outputs["sequence_output"])
    model = keras.Model(inputs, keras.layers.Dense(8, name="tags")(x))
    manifest = export_rknn(model, tmp_path / "m", shapes=((1, 32),))
    assert manifest.head == "custom"
    assert list(manifest.parity) == ["tags"]
    kinds = [row["kind"] for row in json.loads((tmp_path / "m" / "cost.json").read_text())["1x32"]]
    assert kinds.count("exSDPAttention") == 2
    assert kinds.count("exNorm") == 5


def test_a_failed_gate_leaves_evidence_and_no_directory(small, tmp_path):
    with pytest.raises(GateError, match=r"m\.failed/analysis/error_analysis\.txt") as caught:
        export_rknn(small, tmp_path / "m", shapes=((1, 32),), min_cosine=1.0)
    failed = tmp_path / "m.failed"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["m.failed"]
    assert str(failed) in str(caught.value)
    table = (failed / "analysis" / "error_analysis.txt").read_text()
    assert "encoder.layer.1.output.LayerNorm" in table
    assert 0.999 < json.loads((failed / "gate.json").read_text())["pooled_output"]["cosine"] < 1
    assert "rknn building" in (failed / "compiler.log").read_text()
    export_rknn(small, tmp_path / "m", shapes=((1, 32),))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["m"]


def test_activations_beyond_float16_are_found_before_the_compiler_runs(tmp_path):
    config, state, _ = bert("BertModel", **WIDE)
    name = "encoder.layer.0.output.dense.weight"
    source = ExportSource(config, {**state, name: state[name] * 2e5})
    with pytest.raises(GateError, match=r"encoder\.layer\.0\..* reach .* more than float16's 65504"):
        export_rknn(source, tmp_path / "m", shapes=((1, 32),))
    assert not (tmp_path / "m").exists()


def test_what_the_cpu_computes_is_a_warning_and_strictly_an_error(small, tmp_path):
    manifest = export_rknn(small, tmp_path / "m", "rk3568", shapes=((1, 32),))
    assert "2 exSoftmax13" in manifest.build["warnings"][0]
    with pytest.raises(StrictError, match="the CPU computes"):
        export_rknn(small, tmp_path / "n", "rk3568", shapes=((1, 32),), strict=True)
    assert not (tmp_path / "n").exists()


def test_mixed_batches_in_one_file_are_warned_of(small, tmp_path):
    said = []
    export_rknn(small, tmp_path / "m", shapes=((1, 32), (4, 64)), on_progress=said.append)
    assert any("fused the attention of 0 of 2 layers" in line for line in said)


def test_an_existing_directory_is_kept(small, tmp_path):
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "mine").touch()
    with pytest.raises(FileExistsError, match="--overwrite"):
        export_rknn(small, tmp_path / "m")
    assert [path.name for path in (tmp_path / "m").iterdir()] == ["mine"]


def test_limits_hold_and_leave_nothing(small, tmp_path):
    with pytest.raises(WorkerError, match=r"longer than 0\.3 s") as caught:
        export_rknn(small, tmp_path / "m", shapes=((1, 32),), limits=Limits(seconds=0.3))
    assert caught.value.log == tmp_path / "m.failed" / "compiler.log"
    assert caught.value.log.is_file()
    with pytest.raises(WorkerError, match="more than the limit"):
        export_rknn(small, tmp_path / "m", shapes=((1, 32),), limits=Limits(memory=50 * 2**20))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["m.failed"]


def test_two_exports_run_side_by_side(small, tmp_path):
    errors = []

    def export(name, length):
        try:
            export_rknn(small, tmp_path / name, shapes=((1, length),))
        except Exception as error:
            errors.append(error)
            raise

    threads = [threading.Thread(target=export, args=(f"m{n}", n)) for n in (16, 48)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    assert list(Manifest.read(tmp_path / "m16").cost) == ["1x16"]
    assert list(Manifest.read(tmp_path / "m48").cost) == ["1x48"]


def test_interrupting_an_export_ends_the_compiler_and_leaves_nothing(minilm, tmp_path):
    script = textwrap.dedent(
        f"""
        import signal
        from tfbert_npu.export.rknn import export_rknn
        signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored in a shell's background jobs
        export_rknn({str(minilm)!r}, {str(tmp_path / "m")!r}, shapes=((1, 128), (1, 64), (1, 32)),
                    on_progress=lambda line: print(line, flush=True))
        """
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    for line in process.stdout:
        if line.startswith("compiling"):
            break
    time.sleep(3)
    children = psutil.Process(process.pid).children(recursive=True)
    assert children
    os.kill(process.pid, signal.SIGINT)
    process.wait(timeout=30)
    assert not [child for child in children if child.is_running()]
    assert list(tmp_path.iterdir()) == []


def _found():
    from tfbert_npu.rknn.toolchain import find_toolchain

    return find_toolchain()


def state_of_optimum(model, config):
    """Weights of an ONNX file that optimum exported: products' are nameless, equal ones are stored once."""
    import onnx

    tensors = {t.name: onnx.numpy_helper.to_array(t) for t in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type == "Identity" and node.input[0] in tensors:
            tensors[node.output[0]] = tensors[node.input[0]]
    state = {name: value for name, value in tensors.items() if name.startswith(("embeddings.", "encoder."))}
    for node in model.graph.node:
        if node.op_type == "MatMul" and node.input[1] in tensors:
            name = node.name.strip("/").replace("/", ".").removesuffix(".MatMul")
            state[f"{name}.weight"] = tensors[node.input[1]].T
    return source_of(ExportSource(config, state)).state
