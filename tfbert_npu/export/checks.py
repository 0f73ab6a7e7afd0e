"""What an export is held against, and what is kept of one that fails."""

from __future__ import annotations

import json
import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from tfbert_npu.artifact.agreement import Agreement, compare, failures, summary
from tfbert_npu.artifact.directory import staged
from tfbert_npu.artifact.rknn_file import read_rknn
from tfbert_npu.errors import ArtifactError
from tfbert_npu.export import gate
from tfbert_npu.export.source import FLOAT16_MAX, ExportSource, outputs_of
from tfbert_npu.onnx.running import Rows, random_inputs, run_onnx
from tfbert_npu.onnx.signature import Signature
from tfbert_npu.quantize.calibration import calibration_set
from tfbert_npu.quantize.recipe import Recipe
from tfbert_npu.quantize.samples import (
    TEXTS,
    Inputs,
    text_inputs,
    with_positions,
    without_types,
)
from tfbert_npu.quantize.search import SearchError
from tfbert_npu.rknn.cost import Cost
from tfbert_npu.rknn.options import RknnOptions, Shape
from tfbert_npu.rknn.toolchain.environment import Toolchain
from tfbert_npu.rknn.worker import Limits, VendorSession, WorkerError

LOG = "compiler.log"
SEARCH = "search.json"
"""What a search measured before it gave up."""

_KEPT = (LOG, SEARCH, "gate.json", "analysis", "model.onnx")
_GATE_RUNS = 4
_PACKED_TEXTS = 8


class StrictError(ArtifactError):
    """The CPU would compute what the NPU should, and the caller asked for an error in that case."""


@dataclass
class ExportRun:
    """What one export needs at hand throughout."""

    source: ExportSource
    options: RknnOptions
    toolchain: Toolchain
    limits: Limits | None
    texts: Sequence[str] | None
    min_cosine: float
    strict: bool
    say: Callable[[str], None]
    warnings: list[str] = field(default_factory=list)
    calibration: Sequence[Mapping[str, np.ndarray]] | None = None
    recipe: Recipe | None = None
    quantization: dict[str, Any] = field(default_factory=dict)


def gate_inputs(run: ExportRun, shape: Shape) -> list[Inputs]:
    """Batches for the gate at one shape: texts if there is a tokenizer, else random ids."""
    if run.options.packed:
        shape = (_PACKED_TEXTS, shape[1])
    if run.source.tokenizer is not None:
        texts = run.texts or TEXTS
        pairs = run.source.head.pairs
        batches = text_inputs(run.source.tokenizer, texts, shape, _GATE_RUNS, pairs)
        batches = without_types(batches, run.source.config)
    else:
        batches = random_inputs(run.source.config, shape, _GATE_RUNS)
    if run.options.masked_positions is not None:
        batches = with_positions(batches, run.options.masked_positions)
    return batches


def calibration_batches(
    run: ExportRun,
    calibration: Sequence[str] | Sequence[Mapping[str, np.ndarray]],
) -> Sequence[Mapping[str, np.ndarray]]:
    """Calibration texts or batches as batches of the longest shape, where fewest are cut."""
    texts = [item for item in calibration if isinstance(item, str)]
    if not texts:
        return [item for item in calibration if not isinstance(item, str)]
    if len(texts) < len(calibration):
        raise ValueError("calibration mixes texts and batches of inputs; give one kind")
    if run.source.tokenizer is None:
        raise ValueError("calibration texts need a tokenizer; give tokenizer=, a directory with vocab.txt")
    pairs = run.source.head.pairs
    batches = calibration_set(run.source.tokenizer, texts, run.options.shapes[-1], pairs=pairs)
    return without_types(batches, run.source.config)


def pass_gate(
    run: ExportRun,
    session: VendorSession,
    signature: Signature,
    onnx_path: Path,
    batches: Sequence[Inputs],
    staging: Path,
) -> dict[str, Agreement]:
    """Compare the compiled model in the simulator with the reference.

    Returns:
        For each output, the worst agreement of all batches.

    Raises:
        GateError: An output is not the reference's; the vendor's analysis lies in `staging`.
    """
    rows = Rows(run.source.state, batches, run.options)
    expected: Sequence[Mapping[str, Any]]
    if run.source.reference is not None:
        expected = [run.source.reference(batch) for batch in batches]
    else:
        expected = rows.outputs(run_onnx(onnx_path, rows.fed))
    got = rows.outputs([signature.simulate(session, given) for given in rows.fed])
    specs = outputs_of(run.source, run.options.outputs, run.options.masked_positions is not None)
    worst = compare(got, expected, [batch["input_mask"] for batch in batches], specs)
    wrong = failures(worst, run.min_cosine)
    if wrong:
        (staging / "gate.json").write_text(json.dumps(summary(worst), indent=2) + "\n")
        run.say("the gate failed; asking the vendor for its analysis")
        table = session.analyze(signature.ordered(rows.fed[0]), staging / "analysis")
        raise gate.GateError(
            f"the compiled model is not the model: {'; '.join(wrong)}",
            f"the cosine of every operator is in {table}",
        )
    return worst


def check_ranges(run: ExportRun, onnx_path: Path, signature: Signature) -> dict[str, float]:
    """The ten largest activations of one text of the longest shape in float32, by operator.

    Raises:
        GateError: One is more than float16 can hold.
    """
    batch = gate_inputs(run, run.options.shapes[-1])[-1]
    one = {name: value[:1] for name, value in batch.items()}
    fed = Rows(run.source.state, [one], run.options).fed[0]
    ranges = gate.activation_ranges(os.fspath(onnx_path), [fed[spec.name] for spec in signature.inputs])
    name = max(ranges, key=lambda key: ranges[key])
    if not ranges[name] < FLOAT16_MAX:
        raise gate.GateError(
            f"the activations of {name} reach {ranges[name]:.3g}, more than float16's {FLOAT16_MAX:.0f}",
            f"the model cannot run in fp16, see {onnx_path}",
        )
    if ranges[name] > FLOAT16_MAX / 4:
        run.warnings.append(
            f"the activations of {name} reach {ranges[name]:.3g} of float16's {FLOAT16_MAX:.0f}"
        )
    return dict(sorted(ranges.items(), key=lambda pair: -pair[1])[:10])


def check_header(path: Path, run: ExportRun, custom: str) -> None:
    """Make sure that the file that was written says what was asked for."""
    header = read_rknn(path)
    if (
        header.platforms != (run.options.platform.target,)
        and run.options.platform.target not in header.platforms
    ):
        # The vendor writes rk3568 for its twin rk3566.
        twins = {"rk3566", "rk3568"}
        if not {run.options.platform.target, *header.platforms} <= twins:
            raise ArtifactError(f"{path.name} says that it is for {header.platforms}", "please report this")
    if header.custom_string != custom:
        raise ArtifactError(f"{path.name} lost its custom string", "please report this")


def check_targets(run: ExportRun, costs: Mapping[Shape, Cost]) -> None:
    """Warn of operators that the CPU computes and of attention that stays unfused.

    Raises:
        StrictError: The CPU computes what the NPU should, and the caller does not want that.
    """
    for (batch, length), cost in costs.items():
        fused = sum(operator.kind == "exSDPAttention" for operator in cost.operators)
        if run.options.platform.fuses_attention and fused < run.source.config.num_hidden_layers:
            text = (
                f"at {batch}x{length} the compiler fused the attention of {fused} of "
                f"{run.source.config.num_hidden_layers} layers; shapes of one batch size in a file, or "
                'layout="static", and optimization_level 3 let it fuse all'
            )
            run.warnings.append(text)
            run.say(f"warning: {text}")
        lost = cost.unexpected_on_cpu
        if not lost:
            continue
        kinds = Counter(operator.kind for operator in lost).most_common()
        names = ", ".join(f"{count} {kind}" for kind, count in kinds)
        largest = max(lost, key=lambda operator: operator.kib)
        text = (
            f"at {batch}x{length} the CPU computes {len(lost)} operators that the NPU should ({names}), "
            f"the largest {largest.name} with {largest.kib} KiB"
        )
        if run.strict:
            raise StrictError(f"{text}", "leave out strict to accept that")
        run.warnings.append(text)
        run.say(f"warning: {text}")


@contextmanager
def staged_with_evidence(target: Path, *, overwrite: bool) -> Iterator[Path]:
    """As `directory.staged`; if the export fails on the model or the compiler, its evidence is kept.

    It goes to `target.failed`; an export that succeeds takes an older failure's away.
    """
    failed = target.with_name(f"{target.name}.failed")
    with staged(target, overwrite=overwrite) as staging:
        try:
            yield staging
        except (gate.GateError, WorkerError, StrictError, SearchError) as error:
            if isinstance(error, SearchError) and error.evidence:
                (staging / SEARCH).write_text(json.dumps(error.evidence) + "\n", encoding="utf-8")
                error.cause = f"{error.cause} (what was measured is in {failed / SEARCH})"
            shutil.rmtree(failed, ignore_errors=True)
            failed.mkdir(parents=True)
            for name in _KEPT:
                if (staging / name).exists():
                    os.rename(staging / name, failed / name)
            here, there = os.fspath(staging), os.fspath(failed)
            error.cause = error.cause.replace(here, there)
            error.remedy = error.remedy and error.remedy.replace(here, there)
            if isinstance(error, WorkerError):
                error.log = failed / LOG
            raise
    shutil.rmtree(failed, ignore_errors=True)
