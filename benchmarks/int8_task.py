"""A fine-tuned text classifier in fp32, fp16 and int8: accuracy on the same texts, in the simulator.

    python benchmarks/int8_task.py CHECKPOINT texts.csv [--rows 300] [--calibration train.csv]

The CSV files have columns text and category, the label names of the checkpoint's config.json. Calibration
takes texts of the second file that are not among the measured ones, or our own sentences without it.
"""

from __future__ import annotations

import argparse
import csv
import json
import random
import tempfile
from pathlib import Path

import numpy as np

from tfbert_npu.export.compiler import Signature, simulate, vendor_arguments
from tfbert_npu.export.cost import parse_costs
from tfbert_npu.export.graph.model import GraphOptions
from tfbert_npu.export.onnx_file import run_onnx
from tfbert_npu.export.options import checked_options
from tfbert_npu.export.quantize.calibration import calibration_set, default_texts
from tfbert_npu.export.quantize.hybrid import HybridModel
from tfbert_npu.export.quantize.pipeline import quantise
from tfbert_npu.export.quantize.recipe import Recipe, last_block
from tfbert_npu.export.samples import text_inputs
from tfbert_npu.export.source import graph_of, source_of
from tfbert_npu.export.toolchain.environment import find_toolchain
from tfbert_npu.export.worker import VendorSession


def rows_of(path: Path) -> list[tuple[str, str]]:
    """(text, label) pairs."""
    with open(path, encoding="utf-8", newline="") as stream:
        return [(row["text"].strip(), row["category"]) for row in csv.DictReader(stream)]


def main() -> None:
    """Measure and print one line for each precision."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("data", type=Path)
    parser.add_argument("--rows", type=int, default=300)
    parser.add_argument("--length", type=int, default=64)
    parser.add_argument("--calibration", type=Path)
    arguments = parser.parse_args()

    labels = json.loads((arguments.checkpoint / "config.json").read_text())["id2label"]
    index = {name: int(number) for number, name in labels.items()}
    rows = rows_of(arguments.data)
    random.Random(0).shuffle(rows)
    rows = rows[: arguments.rows]
    wanted = np.array([index[label] for _, label in rows])
    source, shape = source_of(arguments.checkpoint), (1, arguments.length)
    batches = text_inputs(source.tokenizer, [text for text, _ in rows], shape, len(rows))
    texts = default_texts()
    if arguments.calibration:
        measured = {text for text, _ in rows}
        texts = tuple(text for text, _ in rows_of(arguments.calibration) if text not in measured)
    calibration = calibration_set(source.tokenizer, texts, shape)
    options = checked_options(
        source.config,
        target_platform="rk3588",
        shapes=[shape],
        precision="w8a8",
        layout="dynamic",
        embeddings="inside",
        outputs=None,
        masked_positions=None,
        optimization_level=3,
        single_core=False,
        compiler=None,
    )
    toolchain = find_toolchain()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        graph = graph_of(source, GraphOptions())
        signature = Signature.of(graph)
        path.write_bytes(graph.SerializeToString())
        exact = np.concatenate([out["logits"] for out in run_onnx(path, batches)])

        def report(name, logits, cycles):
            found = logits.argmax(axis=1)
            print(
                f"{name}: accuracy {np.mean(found == wanted):.4f}, same answer as fp32 "
                f"{np.mean(found == exact.argmax(axis=1)):.4f}, cycles {cycles}",
                flush=True,
            )

        report("fp32", exact, "-")
        for name in ("fp16", "w8a8"):
            vendor, load = vendor_arguments(signature, options, (shape,), "")
            with VendorSession(toolchain, Path(folder) / "log") as session:
                if name == "fp16":
                    cost = parse_costs(session.build(path, vendor, load=load))[0]
                else:
                    quantised = quantise(source, Recipe(float16=last_block(source.config)), calibration)
                    path.write_bytes(graph_of(quantised.source, GraphOptions()).SerializeToString())
                    vendor["quantized_dtype"] = "w8a8"
                    model = HybridModel(session, path, signature, source.config, vendor, load, calibration)
                    cost = model.build(quantised.recipe, quantised.ranges)[0]
                logits = [simulate(session, signature, batch)["logits"] for batch in batches]
            report(name, np.concatenate(logits), cost.cycles)


if __name__ == "__main__":
    main()
