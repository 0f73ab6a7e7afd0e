"""`export_rknn`: a model as an artifact directory for a Rockchip NPU."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from tfbert_npu import __version__
from tfbert_npu.artifact.agreement import Agreement
from tfbert_npu.artifact.directory import check_target
from tfbert_npu.artifact.manifest import Manifest
from tfbert_npu.errors import require
from tfbert_npu.export import gate
from tfbert_npu.export.checks import (
    LOG,
    ExportRun,
    calibration_batches,
    check_header,
    check_ranges,
    check_targets,
    gate_inputs,
    pass_gate,
    staged_with_evidence,
)
from tfbert_npu.export.contents import Exported, write_contents
from tfbert_npu.export.reference import write_reference
from tfbert_npu.export.source import graph_of, source_of, tensorflow_reference
from tfbert_npu.export.study import Study
from tfbert_npu.onnx.model import GraphOptions
from tfbert_npu.onnx.running import prepared
from tfbert_npu.onnx.signature import Signature
from tfbert_npu.quantize.calibration import default_texts, read_texts, resized
from tfbert_npu.quantize.plan import Batches, plan, round_products
from tfbert_npu.quantize.recipe import Recipe, last_block
from tfbert_npu.quantize.samples import with_positions
from tfbert_npu.quantize.search import search
from tfbert_npu.rknn.compiler import Compiler, custom_string
from tfbert_npu.rknn.cost import Cost
from tfbert_npu.rknn.hybrid import document_name
from tfbert_npu.rknn.options import Shape, checked_options
from tfbert_npu.rknn.toolchain.environment import find_toolchain
from tfbert_npu.rknn.worker import Limits, VendorSession


def export_rknn(
    model: Any,
    out_dir: str | os.PathLike[str],
    target_platform: str = "rk3588",
    shapes: Sequence[Sequence[int]] | Literal["buckets"] = ((1, 128),),
    precision: str = "fp16",
    calibration: str | os.PathLike[str] | Sequence[str] | Sequence[Mapping[str, np.ndarray]] | None = None,
    *,
    head: str | None = None,
    outputs: Sequence[str] | None = None,
    layout: str = "dynamic",
    embeddings: str = "inside",
    masked_positions: int | None = None,
    packed: bool = False,
    optimization_level: int = 3,
    single_core: bool = False,
    recipe: Recipe | None = None,
    max_cost: float | None = None,
    compiler_options: dict[str, Any] | None = None,
    user_string: str = "",
    tokenizer: str | os.PathLike[str] | None = None,
    texts: Sequence[str] | None = None,
    min_cosine: float | None = None,
    strict: bool = False,
    overwrite: bool = False,
    python: str | os.PathLike[str] | None = None,
    toolkit_version: str | None = None,
    limits: Limits | None = None,
    on_progress: Callable[[str], None] | None = None,
) -> Manifest:
    """Compile a model for a Rockchip NPU and write the artifact directory.

    The directory appears only if the compiled model, run in the vendor's simulator on padded texts, gives the
    outputs of the model itself. Otherwise the log, the figures and the vendor's per-operator analysis are
    kept beside it, in `<out_dir>.failed`, and the error says so.

    Args:
        model: A `BertEncoder`, its `.mlm`, one of the `BertFor...` models, or the directory or hub repository
            of a checkpoint.
        out_dir: The directory to make.
        target_platform: `"rk3588"`, `"rk3588s"`, `"rk3588s2"`, `"rk3576"`, `"rk3562"`, `"rk3566"`,
            `"rk3568"` or `"rv1126b"`.
        shapes: (batch, length in tokens) pairs to compile for; an NPU takes no other. `"buckets"`: those of
            `rknn.options.buckets`, for texts of every length with little padding.
        precision: `"fp16"`; `"w8a8"`: int8 products with exact transforms before them, and float16 for the
            rest, see `export.quantize`; `"w8a16"` (RK3562) and `"w4a16"` (RK3576): weights of 8 and of 4
            bits, computed in float16.
        calibration: For all but fp16: texts, a file of them, one per line, or batches of int32 arrays [B, S]
            under TF-Hub's input names, of the longest shape. By default our own sentences, in many languages.
        head: What stands on the encoder, for a checkpoint whose `config.json` does not say.
        outputs: As in `export_onnx`.
        layout: `"dynamic"`: one file for all shapes, not in w8a8. `"static"`: one file for each.
        embeddings: `"inside"` the file, or summed on the `"host"`: half the file, and no operator but copies
            on the CPU. The runtime does either without being told.
        masked_positions: Give `mlm_logits` at that many positions instead of everywhere.
        packed: Compute several short texts in one row of a shape, each seeing itself alone: for bulk work.
            For encoders and heads with an output for each token; embeddings are summed on the host.
        optimization_level: 0 to 3, the vendor's.
        single_core: Compile for a single core of an RK3588; a smaller file.
        recipe: For int8: transforms, and the products that stay in float16. By default those of the last
            feed-forward block, or with `min_cosine` or `max_cost` what a search finds.
        max_cost: For int8: the best quality within this share of float16's cycles, 0.55 for instance. With
            `min_cosine` alone, the least cost for that quality over the calibration texts.
        compiler_options: Further arguments of the vendor's `RKNN.config`.
        user_string: Put into the file beside what the runtime needs; read by `read_rknn`.
        tokenizer: Directory with `vocab.txt`; by default the checkpoint's.
        texts: For the gate; by default sentences of several lengths and languages, or random ids if there is
            no tokenizer.
        min_cosine: Least cosine that an output may have, by default `gate.MIN_COSINE`.
        strict: Make it an error if the CPU computes what the NPU should; otherwise a warning.
        overwrite: Replace a directory that is not empty.
        python: Interpreter or virtual environment that has rknn-toolkit2; by default see `find_toolchain`.
        toolkit_version: Demand this version of rknn-toolkit2.
        limits: Time and memory of the compiler.
        on_progress: Called with a line of text as each step begins.

    Returns:
        The manifest, as written.

    Raises:
        ValueError: An option is unknown or impossible.
        FileExistsError: `out_dir` is not empty and `overwrite` is not set; it stays as it is.
        ToolchainError: There is no toolchain, or the compiler failed; the message names its log.
        GateError: The compiled model is not the model.

    Example:
        With rknn-toolkit2 installed (`tfbert-npu toolchain install`):

        >>> from tfbert_npu import export_rknn
        >>> export_rknn("path/to/model", "out", shapes="buckets").precision  # doctest: +SKIP
        'fp16'
    """
    require("onnx", "export")
    require("onnxruntime", "onnx")
    target = Path(out_dir).expanduser().absolute()
    check_target(target, overwrite=overwrite)
    source = source_of(model, head=head, tokenizer=tokenizer)
    options = checked_options(
        source.config,
        target_platform=target_platform,
        shapes=shapes,
        precision=precision,
        layout=layout,
        embeddings=embeddings,
        outputs=outputs,
        masked_positions=masked_positions,
        optimization_level=optimization_level,
        single_core=single_core,
        compiler=compiler_options,
        packed=packed,
    )
    if options.precision != "w8a8" and (recipe is not None or max_cost is not None):
        raise ValueError('recipe and max_cost are for precision="w8a8"')
    if options.precision != "fp16" and calibration is None:
        if source.tokenizer is None:
            raise ValueError(
                f"precision {precision!r} needs calibration: texts and tokenizer=, or batches of inputs"
            )
        calibration = default_texts()
    if isinstance(calibration, (str, os.PathLike)):
        calibration = read_texts(calibration)
    if calibration is not None and len(calibration) == 0:
        raise ValueError("calibration holds no text; leave it out for our own sentences")
    run = ExportRun(
        source=tensorflow_reference(source),
        options=options,
        toolchain=find_toolchain(python, toolkit_version),
        limits=limits,
        texts=texts,
        min_cosine=gate.MIN_COSINE[precision] if min_cosine is None else min_cosine,
        strict=strict,
        say=on_progress or (lambda line: None),
        recipe=recipe,
    )
    if options.precision != "fp16" and calibration:
        run.calibration = calibration_batches(run, calibration)
    with staged_with_evidence(target, overwrite=overwrite) as staging:
        if options.precision == "w8a8" and recipe is None:
            run.recipe = _recipe(run, staging, min_cosine, max_cost)
        return _export(run, staging, target.name, user_string)


def _export(run: ExportRun, staging: Path, name: str, user_string: str) -> Manifest:
    options, source = run.options, run.source
    started = time.monotonic()
    int8, state = None, source.state
    if run.recipe is not None and run.calibration is not None:
        run.say("transforming the weights for int8")
        int8 = plan(source.config, source.state, run.recipe, run.calibration)
        state = int8.state
        run.quantization["recipe"] = run.recipe.as_dict()
    elif options.weight_grid is not None and run.calibration is not None:
        run.say(f"rounding the weights to {options.weight_grid.bits} bits")
        state = round_products(source.config, source.state, options.weight_grid, run.calibration)
    run.say("writing ONNX")
    graph = graph_of(
        replace(source, state=state),
        GraphOptions(
            outputs=options.outputs,
            embeddings=options.embeddings,
            packed=options.packed,
            ffn_slices=options.ffn_slices(source.config),
            batched=any(batch > 1 for batch, _ in options.shapes),
            masked_positions=options.masked_positions,
        ),
    )
    signature = Signature.of(graph)
    onnx_path = staging / "model.onnx"
    onnx_path.write_bytes(graph.SerializeToString())
    del graph
    hashed = source.weights_sha256
    custom = custom_string(
        {
            "tfbert_npu": __version__,
            "head": source.kind,
            "embeddings": options.embeddings,
            "precision": options.precision,
            "source_sha256": hashed,
            **({"user": user_string} if user_string else {}),
        }
    )
    compiler = Compiler(onnx_path, signature, options, source.config, custom)
    ranges: dict[str, float] = {}
    costs: dict[Shape, Cost] = {}
    agreements: dict[Shape, dict[str, Agreement]] = {}
    peak = 0
    for file, shapes in options.files():
        with VendorSession(run.toolchain, staging / LOG, run.limits) as session:
            run.say(f"compiling {file} for {', '.join(f'{b}x{s}' for b, s in shapes)}")
            calibration = () if int8 is None else _calibration_at(run, shapes[0])
            found, document = compiler.compile(session, shapes, int8, calibration)
            costs |= found
            if document is not None:
                (staging / document_name(file)).write_text(json.dumps(document) + "\n", encoding="utf-8")
            ranges = ranges or check_ranges(run, onnx_path, signature)
            for shape in shapes:
                run.say(f"simulating {shape[0]}x{shape[1]}")
                inputs = gate_inputs(run, shape)
                agreements[shape] = pass_gate(run, session, signature, onnx_path, inputs, staging)
            session.export(staging / file)
            peak = max(peak, session.peak_memory)
        check_header(staging / file, run, custom)
    check_targets(run, costs)
    run.say("writing the directory")
    lengths = [length for _, length in options.shapes]
    write_reference(staging, source, lengths, options.outputs, options.masked_positions, options)
    return write_contents(
        staging,
        Exported(
            name=name,
            source=source,
            options=options,
            signature=signature,
            toolchain=run.toolchain,
            source_sha256=hashed,
            costs=costs,
            agreements=agreements,
            ranges=ranges,
            min_cosine=run.min_cosine,
            gate_inputs="texts" if source.tokenizer is not None else "random ids",
            reference=source.reference_name or "onnxruntime",
            warnings=tuple(run.warnings),
            seconds=time.monotonic() - started,
            peak_memory=peak,
            quantization=run.quantization,
        ),
    )


def _calibration_at(run: ExportRun, shape: Shape) -> Batches:
    """The calibration batches at one shape, under the graph's input names."""
    assert run.calibration is not None
    cut = resized(run.calibration, shape)
    if run.options.masked_positions is not None:
        cut = with_positions(cut, run.options.masked_positions)
    return prepared(run.source.state, cut, run.options.embeddings)


def _recipe(run: ExportRun, staging: Path, min_cosine: float | None, max_cost: float | None) -> Recipe:
    """The default recipe, or the one that a search finds."""
    if min_cosine is None and max_cost is None:
        return Recipe(float16=last_block(run.source.config))
    assert run.calibration is not None
    # As the calibration set: at the longest shape, where no text is cut.
    options = replace(run.options, shapes=run.options.shapes[-1:])
    study = Study(run.source, options, run.toolchain, staging / LOG, run.calibration, run.limits, run.say)
    with study:
        found = search(study, min_cosine=min_cosine, max_cost=max_cost)
    run.quantization.update(found.as_dict())
    return found.chosen.recipe
