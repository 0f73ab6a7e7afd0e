"""What an artifact directory holds beside the network: configuration, tokenizer, manifest, card."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tfbert_npu import __version__
from tfbert_npu.artifact.agreement import Agreement, summary, worst_of
from tfbert_npu.artifact.hashing import sha256_of
from tfbert_npu.artifact.manifest import Manifest, ModelFile, SupportFile
from tfbert_npu.artifact.rk_transformers import HF_INPUTS
from tfbert_npu.export.card import write_card
from tfbert_npu.export.source import ExportSource
from tfbert_npu.onnx.directory import reference_files, support_files, write_support
from tfbert_npu.onnx.signature import Signature
from tfbert_npu.rknn.cost import Cost
from tfbert_npu.rknn.hybrid import document_name
from tfbert_npu.rknn.options import RknnOptions, Shape
from tfbert_npu.rknn.time_model import predicted
from tfbert_npu.rknn.toolchain.environment import Toolchain

COSTS = "cost.json"


@dataclass(frozen=True)
class Exported:
    """All that an export found out."""

    name: str
    source: ExportSource
    options: RknnOptions
    signature: Signature
    toolchain: Toolchain
    source_sha256: str
    costs: Mapping[Shape, Cost]
    agreements: Mapping[Shape, Mapping[str, Agreement]]
    ranges: Mapping[str, float]
    min_cosine: float
    gate_inputs: str
    reference: str
    warnings: tuple[str, ...]
    seconds: float
    peak_memory: int
    quantization: Mapping[str, Any] = field(default_factory=dict)
    """For int8: the recipe, and what a search found."""


def write_contents(directory: Path, exported: Exported) -> Manifest:
    """Complete a directory that holds the .rknn files and `model.onnx`; the manifest comes last."""
    source, options = exported.source, exported.options
    blocks = {name: _rknn_block(exported, shapes) for name, shapes in options.files()}
    support = write_support(directory, source, options, {"rknn": blocks})
    for name, _ in options.files():
        if (directory / document_name(name)).is_file():
            support.append((document_name(name), "quantization"))
    rows = {_key(shape): cost.rows() for shape, cost in exported.costs.items()}
    (directory / COSTS).write_text(json.dumps(rows) + "\n", encoding="utf-8")
    support += [(COSTS, "report"), ("compiler.log", "report"), *reference_files(directory)]
    manifest = _manifest(directory, exported, support_files(directory, support))
    manifest.write(directory)
    # No hash of the card: its author is meant to edit it.
    write_card(directory, exported.name, manifest)
    return manifest


def _manifest(directory: Path, exported: Exported, support: tuple[SupportFile, ...]) -> Manifest:
    options, signature = exported.options, exported.signature
    models = []
    for name, shapes in [*options.files(), ("model.onnx", ())]:
        on_npu = name.endswith(".rknn")
        models.append(
            ModelFile(
                path=name,
                kind="rknn" if on_npu else "onnx",
                sha256=sha256_of(directory / name),
                size=(directory / name).stat().st_size,
                shapes=shapes,
                inputs=signature.inputs,
                outputs=signature.outputs,
                platform=options.platform.target if on_npu else None,
                toolkit_version=exported.toolchain.version if on_npu else None,
                precision=options.precision if on_npu else "fp32",
            )
        )
    worst = worst_of(exported.agreements.values())
    return Manifest(
        head=exported.source.kind,
        embeddings=options.embeddings,
        layout=options.layout,
        precision=options.precision,
        models=tuple(models),
        support=support,
        source_sha256=exported.source_sha256,
        parity=summary(worst),
        gate={
            "reference": exported.reference,
            "inputs": exported.gate_inputs,
            "min_cosine": exported.min_cosine,
            "shapes": {_key(shape): summary(found) for shape, found in exported.agreements.items()},
            "largest_activations": dict(exported.ranges),
        },
        cost={
            _key(shape): {**cost.summary(options.platform), "predicted": predicted(cost, options.platform)}
            for shape, cost in exported.costs.items()
        },
        build={
            "target_platform": options.platform.name,
            "toolkit_version": exported.toolchain.version,
            "optimization_level": options.optimization_level,
            "single_core": options.single_core,
            "compiler_options": options.compiler,
            "ffn_slices": options.ffn_slices(exported.source.config),
            "seconds": round(exported.seconds, 1),
            "peak_memory_mb": round(exported.peak_memory / 2**20),
            "warnings": list(exported.warnings),
            **({"quantization": dict(exported.quantization)} if exported.quantization else {}),
        },
        created_by=f"tfbert-npu {__version__}",
    )


def _rknn_block(exported: Exported, shapes: tuple[Shape, ...]) -> dict[str, Any]:
    options, signature = exported.options, exported.signature
    batch, length = shapes[-1]
    grid = options.weight_grid
    dynamic = [signature.input_shapes(shape) for shape in shapes] if len(shapes) > 1 else None
    return {
        "batch_size": batch,
        "max_seq_length": length,
        "model_input_names": [HF_INPUTS.get(spec.name, spec.name) for spec in signature.inputs],
        "dynamic_input": dynamic,
        "float_dtype": "float16",
        "target_platform": options.platform.target,
        "single_core_mode": options.single_core,
        "opset": 17,
        "optimization": {
            "compress_weight": False,
            "enable_flash_attention": False,
            "model_pruning": False,
            "optimization_level": options.optimization_level,
            "remove_reshape": False,
            "remove_weight": False,
            "sparse_infer": False,
        },
        "quantization": {
            "do_quantization": options.precision != "fp16",
            "quantized_dtype": "w8a8" if options.precision == "fp16" else options.precision,
            "quantized_algorithm": "normal",
            "quantized_method": f"group{grid.group}" if grid is not None and grid.group else "channel",
        },
        "custom_string": None,
        "inputs_yuv_fmt": None,
        "mean_values": None,
        "std_values": None,
        "task": "auto",
        "task_kwargs": None,
    }


def _key(shape: Shape) -> str:
    return f"{shape[0]}x{shape[1]}"
