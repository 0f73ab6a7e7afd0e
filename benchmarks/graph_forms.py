"""Compile the encoder in several forms and print what the compiler counts for each.

    python benchmarks/graph_forms.py [MODEL] [--platform rk3588] [--shape 1x128]

The experiment behind the form that `export.graph` writes. Needs the toolchain.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
from export_table import minilm
from onnx import numpy_helper

from tfbert_npu.config import BertConfig
from tfbert_npu.export.source import ExportSource, source_of
from tfbert_npu.onnx.model import GraphOptions, write_graph
from tfbert_npu.onnx.signature import Signature
from tfbert_npu.rknn.compiler import Compiler
from tfbert_npu.rknn.options import checked_options
from tfbert_npu.rknn.toolchain import find_toolchain
from tfbert_npu.rknn.worker import VendorSession

Form = tuple[str, onnx.ModelProto]


def forms(source: ExportSource) -> Iterator[Form]:
    """Name and graph of each form; all compute the same."""
    for place in ("inside", "host"):
        for slices in (1, 2, 3, 4, 6):
            options = GraphOptions(embeddings=place, ffn_slices=slices)
            name = f"embeddings {place}, feed-forward in {slices}"
            yield name, write_graph(source.config, source.state, "encoder", options)
    yield (
        "first token cut from flat rows",
        write_graph(source.config, source.state, "encoder", GraphOptions(embeddings="host", batched=True)),
    )
    yield (
        "query, key and value in one product",
        merge_projections(
            write_graph(source.config, source.state, "encoder", GraphOptions(embeddings="host")),
            source.config,
        ),
    )


def merge_projections(model: onnx.ModelProto, config: BertConfig) -> onnx.ModelProto:
    """One product of [H, 3H] and a Split instead of three products."""
    tensors = {t.name: t for t in model.graph.initializer}
    nodes = {node.name: node for node in model.graph.node}
    for layer in range(config.num_hidden_layers):
        name = f"encoder.layer.{layer}.attention.self"
        parts = [f"{name}.{part}" for part in ("query", "key", "value")]
        for ending, axis in (("kernel", 1), ("bias", 0)):
            whole = np.concatenate(
                [numpy_helper.to_array(tensors[f"{part}.{ending}"]) for part in parts], axis=axis
            )
            model.graph.initializer.append(numpy_helper.from_array(whole, f"{name}.{ending}"))
            for part in parts:
                model.graph.initializer.remove(tensors[f"{part}.{ending}"])
        products = [nodes[f"{part}/MatMul"] for part in parts]
        sums = [nodes[f"{part}/Add"] for part in parts]
        place = list(model.graph.node).index(products[0])
        merged = [
            onnx.helper.make_node("MatMul", [products[0].input[0], f"{name}.kernel"], [f"{name}.product"]),
            onnx.helper.make_node("Add", [f"{name}.product", f"{name}.bias"], [f"{name}.sum"]),
            onnx.helper.make_node("Split", [f"{name}.sum"], [node.output[0] for node in sums], axis=2),
        ]
        for node in (*products, *sums):
            model.graph.node.remove(node)
        for offset, node in enumerate(merged):
            node.name = f"{name}/{node.op_type}"
            model.graph.node.insert(place + offset, node)
    onnx.checker.check_model(model, full_check=True)
    return model


def main() -> None:
    """Print one row per form, as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("model", nargs="?")
    parser.add_argument("--platform", default="rk3588")
    parser.add_argument("--shape", default="1x128")
    arguments = parser.parse_args()
    source = source_of(arguments.model or minilm())
    batch, length = map(int, arguments.shape.split("x"))
    options = checked_options(
        source.config,
        target_platform=arguments.platform,
        shapes=((batch, length),),
        precision="fp16",
        layout="dynamic",
        embeddings="inside",
        outputs=None,
        masked_positions=None,
        optimization_level=3,
        single_core=False,
        # With it the compiler puts a Gather on the merged projections and asks for torch.
        compiler={"disable_rules": ["reduce_reshape_op_around_split"]},
    )
    print("| form | cycles | MB moved | NPU / CPU operators |")
    print("|---|---|---|---|")
    toolchain = find_toolchain()
    for name, graph in forms(source):
        with tempfile.TemporaryDirectory() as directory:
            path = Path(directory) / "model.onnx"
            path.write_bytes(graph.SerializeToString())
            with VendorSession(toolchain, Path(directory) / "log") as session:
                compiler = Compiler(path, Signature.of(graph), options, source.config)
                costs, _ = compiler.compile(session, options.shapes)
        cost = costs[batch, length].summary(options.platform)
        print(
            f"| {name} | {cost['cycles']:.0f} | {cost['mb_moved']:.2f} | "
            f"{cost['npu_ops']:.0f} / {cost['cpu_ops']:.0f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
