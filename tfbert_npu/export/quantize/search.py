"""Which products to keep in float16: the fewest cycles for a quality, or the best quality for the cycles.

int8 errors of different products are nearly independent, so what they add to 1 - cosine nearly adds up. Each
product is kept in float16 alone once, its gain for a cycle is measured in the vendor's simulator, and
products are then kept in falling order of it: a greedy solution of the knapsack problem.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any

from tfbert_npu.export.compiler import Signature, simulate, vendor_arguments
from tfbert_npu.export.cost import Cost, cost_at, parse_costs
from tfbert_npu.export.gate import MIN_COSINE
from tfbert_npu.export.graph.model import GraphOptions
from tfbert_npu.export.onnx_file import prepared, run_onnx
from tfbert_npu.export.options import RknnOptions
from tfbert_npu.export.quantize.hybrid import HybridModel
from tfbert_npu.export.quantize.measure import Quality, quality
from tfbert_npu.export.quantize.pipeline import Batches, quantise
from tfbert_npu.export.quantize.recipe import Operator, Recipe, operators
from tfbert_npu.export.source import ExportSource, graph_of
from tfbert_npu.export.toolchain.environment import Toolchain
from tfbert_npu.export.worker import Limits, VendorSession

_PROBES = 12


class SearchError(ValueError):
    """No recipe reaches what was demanded; the message says what the best one reaches."""


@dataclass(frozen=True)
class Trial:
    """A recipe and what it was measured to be."""

    recipe: Recipe
    quality: Quality
    cost: float
    """Share of the float16 file's cycles."""
    mb_moved: float

    @property
    def error(self) -> float:
        """1 - cosine, the mean over outputs of the median text: steadier than the worst text's."""
        return 1.0 - sum(self.quality.median.values()) / len(self.quality.median)

    def as_dict(self) -> dict[str, Any]:
        """As plain JSON."""
        return {
            "float16": self.recipe.as_dict()["float16"],
            "cost": round(self.cost, 4),
            "mb_moved": round(self.mb_moved, 2),
            "quality": self.quality.as_dict(),
        }


@dataclass(frozen=True)
class Found:
    """The result of a search."""

    chosen: Trial
    frontier: tuple[Trial, ...]
    """Trials that no other one beats in cost and worst cosine, the cheapest first."""

    def as_dict(self) -> dict[str, Any]:
        """As plain JSON."""
        return {"chosen": self.chosen.as_dict(), "frontier": [trial.as_dict() for trial in self.frontier]}


class Study:
    """Measures recipes that differ in what stays in float16, on some of the calibration texts.

    A context manager; the transforms and step 1 of the quantisation are done once.

    Args:
        source: The model.
        options: Platform, shapes (the first is measured) and outputs.
        toolchain: Whose compiler.
        log: File that takes what the vendor prints.
        calibration: Batches of the first shape.
        limits: Of each vendor process.
        say: Called with a line of text for each trial.
        start: What all recipes have in common.
    """

    def __init__(
        self,
        source: ExportSource,
        options: RknnOptions,
        toolchain: Toolchain,
        log: str | os.PathLike[str],
        calibration: Batches,
        limits: Limits | None = None,
        say: Callable[[str], None] = lambda line: None,
        start: Recipe | None = None,
    ) -> None:
        self.operators = operators(source.config)
        self.trials: list[Trial] = []
        self._say = say
        self._source, self._options = source, options
        self._toolchain, self._log, self._limits = toolchain, log, limits
        self._calibration = calibration
        # Weights rounded for int8 would be of no use to the products that a trial keeps in float16.
        self.start = replace(start or Recipe(), rounding="nearest")

    def __enter__(self) -> Study:
        self._say("transforming the weights for int8")
        self._quantised = quantise(self._source, self.start, self._calibration)
        options, shape = self._options, self._options.shapes[0]
        wanted = GraphOptions(
            outputs=options.outputs, embeddings=options.embeddings, masked_positions=options.masked_positions
        )
        fed = prepared(self._source, self._calibration, options.embeddings)
        step = max(1, len(fed) // _PROBES)
        self._probes = fed[step // 2 :: step][:_PROBES]
        self._masks = self._calibration[step // 2 :: step][:_PROBES]
        self._directory = tempfile.TemporaryDirectory(prefix="tfbert-npu-")
        path = Path(self._directory.name) / "model.onnx"
        original = graph_of(self._source, wanted)
        self._signature = Signature.of(original)
        path.write_bytes(original.SerializeToString())
        self._expected = run_onnx(path, self._probes)
        vendor, load = vendor_arguments(self._signature, options, (shape,), "")
        self._session = VendorSession(self._toolchain, self._log, self._limits)
        try:
            self._say("compiling in float16, to compare")
            built = self._session.build(path, vendor, load=load)
            self._float16 = cost_at(parse_costs(built), shape)
            self._check_float16()
            path.write_bytes(graph_of(self._quantised.source, wanted).SerializeToString())
            vendor["quantized_dtype"] = options.precision
            self._model = HybridModel(
                self._session, path, self._signature, self._source.config, vendor, load, fed
            )
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._session.close()
        self._directory.cleanup()

    def _check_float16(self) -> None:
        found = self._quality()
        if not found.cosine >= MIN_COSINE["fp16"]:
            raise SearchError(
                f"the model's cosine in float16 is only {found.cosine:.5f}, and int8 cannot do better; "
                'export it with precision="fp16" and see why its gate fails'
            )

    def _quality(self) -> Quality:
        got = [simulate(self._session, self._signature, batch) for batch in self._probes]
        return quality(got, self._expected, self._masks)

    def measure(self, float16: Sequence[Operator]) -> Trial:
        """Build with these products in float16 and compare with the model."""
        recipe = replace(self.start, float16=frozenset(float16))
        for known in self.trials:
            if known.recipe == recipe:
                return known
        cost: Cost = cost_at(self._model.build(recipe, self._quantised.ranges), self._options.shapes[0])
        trial = Trial(
            recipe,
            self._quality(),
            cost.cycles / self._float16.cycles,
            cost.kib / 1024,
        )
        self.trials.append(trial)
        self._say(
            f"{len(recipe.float16)} products in float16: worst cosine {trial.quality.cosine:.5f} "
            f"at {trial.cost:.3f} of float16's cycles"
        )
        return trial


def search(study: Study, *, min_cosine: float | None = None, max_cost: float | None = None) -> Found:
    """Find what to keep in float16.

    Args:
        study: Measures; any object with its `operators`, `measure` and `trials`.
        min_cosine: Least cosine of the worst text: the cheapest recipe that has it.
        max_cost: Largest share of float16's cycles: the best recipe within it.

    Raises:
        ValueError: Neither is given.
        SearchError: They cannot be met.
    """
    if min_cosine is None and max_cost is None:
        raise ValueError("give min_cosine, max_cost or both")
    bare = study.measure(())
    if max_cost is not None and bare.cost > max_cost:
        raise SearchError(
            f"max_cost {max_cost:g} cannot be met: with every product in int8 it is {bare.cost:.3f} of "
            "float16's cycles; allow more, or take fewer side_neurons"
        )
    if min_cosine is not None and bare.quality.cosine >= min_cosine:
        return Found(bare, frontier_of(study.trials))
    order = _by_gain(study, bare)
    fits = _count_within(study, order, max_cost)
    count = fits
    if min_cosine is not None:
        best = study.measure(order[:fits])
        if best.quality.cosine < min_cosine:
            within = "" if max_cost is None else f" within max_cost {max_cost:g}"
            raise SearchError(
                f"min_cosine {min_cosine:g} cannot be met{within}: the worst text's cosine is at best "
                f"{best.quality.cosine:.5f}; demand less or use fp16"
            )
        low = 0
        while count - low > 1:
            middle = (low + count) // 2
            if study.measure(order[:middle]).quality.cosine >= min_cosine:
                count = middle
            else:
                low = middle
    chosen = study.measure(order[:count])
    return Found(chosen, frontier_of(study.trials))


def frontier_of(trials: Sequence[Trial]) -> tuple[Trial, ...]:
    """The trials that none beats in both cost and worst cosine, the cheapest first."""
    best: list[Trial] = []
    for trial in sorted(trials, key=lambda one: (one.cost, -one.quality.cosine)):
        if not best or trial.quality.cosine > best[-1].quality.cosine:
            best.append(trial)
    return tuple(best)


def _by_gain(study: Study, bare: Trial) -> list[Operator]:
    """Operators in falling order of what each gains for a cycle when it alone stays in float16."""
    gains = {}
    for operator in study.operators:
        trial = study.measure((operator,))
        gains[operator] = (bare.error - trial.error) / max(trial.cost - bare.cost, 1e-6)
    return sorted(study.operators, key=lambda operator: -gains[operator])


def _count_within(study: Study, order: Sequence[Operator], max_cost: float | None) -> int:
    """How many of the first operators in order can be float16 within the cost."""
    if max_cost is None:
        return len(order)
    low, high = 0, len(order) + 1
    while high - low > 1:
        middle = (low + high) // 2
        if study.measure(order[:middle]).cost <= max_cost:
            low = middle
        else:
            high = middle
    return low
