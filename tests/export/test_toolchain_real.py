"""Real environments: the older version, the CPU wheel of torch, and what never touches torch."""

from __future__ import annotations

import subprocess

import numpy as np
import pytest

from tfbert_npu.export.rknn import export_rknn
from tfbert_npu.export.source import ExportSource
from tfbert_npu.onnx.model import write_graph
from tfbert_npu.onnx.signature import Signature
from tfbert_npu.rknn.toolchain import find_toolchain, install_toolchain
from tfbert_npu.rknn.toolchain.environment import ToolchainError
from tfbert_npu.rknn.worker import VendorSession, WorkerError

from .models import bert
from .test_export_rknn import WIDE

pytestmark = pytest.mark.slow


def kept(version, **options):
    """An environment that stays for the next run, where `toolchain install` would put it."""
    try:
        return find_toolchain(version=version)
    except ToolchainError:
        return install_toolchain(version, **options)


def test_the_environment_holds_neither_torch_nor_cuda(toolchain):
    code = "import importlib.metadata as m; print(*sorted(d.name.lower() for d in m.distributions()))"
    done = subprocess.run([toolchain.python, "-I", "-c", code], capture_output=True, text=True, check=True)
    names = done.stdout.split()
    assert "rknn-toolkit2" in names
    assert toolchain.torch is None
    assert not [name for name in names if name.startswith(("nvidia", "cuda", "torch", "opencv"))]


def test_the_older_version_passes_the_gate(tmp_path):
    older = kept("2.3.2")
    config, state, _ = bert("BertModel", **WIDE)
    manifest = export_rknn(
        ExportSource(config, state), tmp_path / "m", shapes=((1, 32), (1, 64)), python=older.python
    )
    assert manifest.build["toolkit_version"] == "2.3.2"
    assert manifest.rknn_files[0].toolkit_version == "2.3.2"


@pytest.fixture
def onnx_model(tmp_path):
    config, state, _ = bert("BertModel", **WIDE)
    graph = write_graph(config, state)
    (tmp_path / "model.onnx").write_bytes(graph.SerializeToString())
    rng = np.random.default_rng(0)
    samples = []
    for _ in range(3):
        mask = np.ones((1, 32), np.int32)
        mask[:, 20:] = 0
        ids = rng.integers(0, 500, (1, 32)).astype(np.int32) * mask
        samples.append([ids, mask, np.zeros((1, 32), np.int32)])
    signature = Signature.of(graph)
    load = {
        "inputs": [spec.name for spec in signature.inputs],
        "input_size_list": signature.input_shapes((1, 32)),
    }
    return tmp_path / "model.onnx", load, samples


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"quantized_algorithm": "mmse"},
        {"quantized_algorithm": "kl_divergence"},
        {"quantized_method": "layer"},
        {"auto_hybrid_cos_thresh": 0.99},
    ],
    ids=["normal", "mmse", "kl_divergence", "layer", "auto_hybrid"],
)
def test_int8_needs_no_torch(toolchain, onnx_model, tmp_path, options):
    path, load, samples = onnx_model
    with VendorSession(toolchain, tmp_path / "log") as session:
        build = {"do_quantization": True, "dataset": str(session.write_dataset(samples))}
        build["auto_hybrid"] = "auto_hybrid_cos_thresh" in options
        session.build(path, {"target_platform": "rk3588", **options}, load=load, build=build)
        sequence, pooled = session.infer(samples[0])
        assert pooled.shape == (1, 128)
        assert np.isfinite(sequence).all()
        assert "embeddings" in session.analyze(samples[0], tmp_path / "analysis").read_text()


def test_hybrid_steps_need_no_torch(toolchain, onnx_model, tmp_path):
    path, load, samples = onnx_model
    with VendorSession(toolchain, tmp_path / "log") as session:
        files = session.hybrid_step1(path, {"target_platform": "rk3588"}, samples, load=load, proposal=False)
        assert "custom_quantize_layers" in files.config.read_text()
        printed = session.hybrid_step2(files)
        assert "Cycles(DDR/NPU/Total)" in printed
        assert np.isfinite(session.infer(samples[0])[0]).all()
        session.export(tmp_path / "model.rknn")
    assert (tmp_path / "model.rknn").stat().st_size > 100_000


def test_the_real_torch_serves_as_well(toolchain, onnx_model, tmp_path):
    """The stand-ins give way to torch where it is installed, and the numbers are the same."""
    path, load, samples = onnx_model
    with_torch = install_toolchain(directory=tmp_path / "torch", with_torch=True)
    assert with_torch.torch is not None
    assert "+cpu" in with_torch.torch
    results = []
    for one in (toolchain, with_torch):
        with VendorSession(one, tmp_path / "log") as session:
            session.build(path, {"target_platform": "rk3588"}, load=load)
            results.append(session.infer(samples[0]))
    for stand_in, real in zip(*results, strict=True):
        np.testing.assert_array_equal(stand_in, real)


def test_a_graph_that_needs_torch_says_so(toolchain, onnx_model, tmp_path):
    """One of the compiler's rules for graphs that are not ours calls torch; the stand-in must not hide it."""
    import onnx

    path, load, _ = onnx_model
    model = onnx.load(path)
    tensors = {t.name: onnx.numpy_helper.to_array(t) for t in model.graph.initializer}
    name = "encoder.layer.0.attention.self"
    parts = [f"{name}.{part}" for part in ("query", "key", "value")]
    nodes = {node.name: node for node in model.graph.node}
    for ending, axis in (("kernel", 1), ("bias", 0)):
        whole = np.concatenate([tensors[f"{part}.{ending}"] for part in parts], axis=axis)
        model.graph.initializer.append(onnx.numpy_helper.from_array(whole, f"{name}.{ending}"))
    place = list(model.graph.node).index(nodes[f"{parts[0]}/MatMul"])
    hidden = nodes[f"{parts[0]}/MatMul"].input[0]
    sums = [nodes[f"{part}/Add"].output[0] for part in parts]
    for part in parts:
        model.graph.node.remove(nodes[f"{part}/MatMul"])
        model.graph.node.remove(nodes[f"{part}/Add"])
    merged = [
        onnx.helper.make_node("MatMul", [hidden, f"{name}.kernel"], ["product"], name="product"),
        onnx.helper.make_node("Add", ["product", f"{name}.bias"], ["sum"], name="sum"),
        onnx.helper.make_node("Split", ["sum"], sums, name="split", axis=2),
    ]
    for offset, node in enumerate(merged):
        model.graph.node.insert(place + offset, node)
    onnx.save(model, path)
    with VendorSession(toolchain, tmp_path / "log") as session:
        with pytest.raises(
            WorkerError, match="needs the real torch: run `tfbert-npu toolchain install --with-torch"
        ):
            session.build(path, {"target_platform": "rk3588"}, load=load)
        rules = {"disable_rules": ["reduce_reshape_op_around_split"]}
        session.build(path, {"target_platform": "rk3588", **rules}, load=load)
