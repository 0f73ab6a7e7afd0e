"""int8 against fp16: cycles, MB moved, worst cosine and Spearman's correlation over texts, in the simulator.

    python benchmarks/int8_quality.py MODEL texts.txt [--variants plain,default,...] [--json results.json]
    python benchmarks/int8_quality.py MODEL texts.txt --platform rk3576 --variants fp16,w4a16
    python benchmarks/int8_quality.py MODEL texts.txt --recipe OUT

MODEL is a directory or a hub repository, texts.txt holds one text per line, none of which is in the
calibration set (our own sentences); `int8_texts.py` draws them from the test data. `plain` and `auto_hybrid`
are the vendor's own modes, on the same calibration set and with the mask constant -100, without which they
are unusable; `w8a16` (rk3562) and `w4a16` (rk3576) quantize the weights alone. `--recipe` measures what
`tfbert-npu export --precision w8a8 --max-cost ...` chose.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from dataclasses import replace
from pathlib import Path

from tfbert_npu.artifact.manifest import Manifest
from tfbert_npu.export.source import graph_of, outputs_of, source_of
from tfbert_npu.onnx import encoder
from tfbert_npu.onnx.model import GraphOptions
from tfbert_npu.onnx.running import run_onnx
from tfbert_npu.onnx.signature import Signature
from tfbert_npu.quantize.calibration import calibration_set, default_texts, read_texts
from tfbert_npu.quantize.grid import WEIGHT_ONLY
from tfbert_npu.quantize.measure import quality
from tfbert_npu.quantize.plan import plan, round_products
from tfbert_npu.quantize.recipe import Recipe, last_block, operators
from tfbert_npu.quantize.samples import text_inputs
from tfbert_npu.rknn.compiler import Compiler
from tfbert_npu.rknn.cost import parse_costs
from tfbert_npu.rknn.options import checked_options
from tfbert_npu.rknn.toolchain.environment import find_toolchain
from tfbert_npu.rknn.worker import VendorSession


def kept(config, *products):
    """All products of these kinds."""
    return frozenset(one for one in operators(config) if one.product in products)


def recipes(config):
    """Recipes by name."""
    return {
        "default": Recipe(float16=last_block(config)),
        "all int8": Recipe(),
        "attention float16": Recipe(float16=kept(config, "attention_output", "value")),
        "up float16": Recipe(float16=kept(config, "up")),
    }


def write_model(source, path):
    """The ONNX file that is compiled next."""
    path.write_bytes(graph_of(source, GraphOptions()).SerializeToString())


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument("texts", type=Path)
    parser.add_argument("--variants", default="fp16,plain,auto_hybrid,all int8,default")
    parser.add_argument("--recipe", type=Path, help="artifact directory, whose recipe is the only variant")
    parser.add_argument("--platform", default="rk3588")
    parser.add_argument("--length", type=int, default=128)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()

    source, shape = source_of(arguments.model), (1, arguments.length)
    known = recipes(source.config)
    if arguments.recipe is not None:
        arguments.variants = "recipe"
        build = Manifest.read(arguments.recipe).build
        known["recipe"] = Recipe.from_dict(build["quantization"]["recipe"])
    batches = text_inputs(source.tokenizer, texts := read_texts(arguments.texts), shape, len(texts))
    calibration = calibration_set(source.tokenizer, default_texts(), shape)
    toolchain = find_toolchain()
    options = checked_options(
        source.config,
        target_platform=arguments.platform,
        shapes=[shape],
        precision="fp16",
        layout="dynamic",
        embeddings="inside",
        outputs=None,
        masked_positions=None,
        optimization_level=3,
        single_core=False,
        compiler=None,
    )
    rows = {}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        graph = graph_of(source, GraphOptions())
        signature = Signature.of(graph)
        path.write_bytes(graph.SerializeToString())
        expected = run_onnx(path, batches)
        full = None
        names = ["fp16", *(name for name in arguments.variants.split(",") if name != "fp16")]
        for name in names:
            precision = name if name in WEIGHT_ONLY else "w8a8"
            compiler = Compiler(path, signature, replace(options, precision=precision), source.config)
            samples = [[batch[spec.name] for spec in signature.inputs] for batch in calibration]
            with VendorSession(toolchain, Path(folder) / "log") as session:
                if name in WEIGHT_ONLY:
                    state = round_products(source.config, source.state, WEIGHT_ONLY[name], calibration)
                    write_model(replace(source, state=state), path)
                    cost = compiler.compile(session, [shape])[0][shape]
                elif name in ("fp16", "plain", "auto_hybrid"):
                    original, encoder.MASK_BIAS = encoder.MASK_BIAS, -100.0
                    write_model(source, path)
                    encoder.MASK_BIAS = original
                    vendor, load = compiler.arguments([shape])
                    build = {"do_quantization": name != "fp16"}
                    if name != "fp16":
                        vendor["quantized_dtype"] = "w8a8"
                        if name == "auto_hybrid":
                            vendor["auto_hybrid_cos_thresh"] = 0.999
                            build["auto_hybrid"] = True
                        build["dataset"] = str(session.write_dataset(samples))
                    cost = parse_costs(session.build(path, vendor, load=load, build=build))[0]
                else:
                    int8 = plan(source.config, source.state, known[name], calibration)
                    write_model(replace(source, state=int8.state), path)
                    cost = compiler.compile(session, [shape], int8, calibration)[0][shape]
                full = full or cost
                if name == "fp16" and "fp16" not in arguments.variants.split(","):
                    continue
                got = [signature.simulate(session, batch) for batch in batches]
            found = quality(got, expected, batches, outputs_of(source, None))
            rows[name] = {
                "cost": round(cost.cycles / full.cycles, 4),
                "mb_moved": round(cost.kib / 1024, 1),
                **found.as_dict(),
            }
            print(name, json.dumps(rows[name]), flush=True)
            if arguments.json:
                arguments.json.write_text(json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
    main()
