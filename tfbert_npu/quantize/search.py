"""Which products to keep in float16: the fewest cycles for a quality, or the best quality for the cycles.

int8 errors of different products are nearly independent, so what they add to 1 - cosine nearly adds up. Each
product is kept in float16 alone once, its gain for a cycle is measured in the vendor's simulator, and
products are then kept in falling order of it: a greedy solution of the knapsack problem. How many of them is
decided by what the whole recipe, rounded weights included, is measured to be.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from tfbert_npu.errors import TfbertNpuError
from tfbert_npu.quantize.measure import Quality
from tfbert_npu.quantize.recipe import Operator, Recipe

_PARTS = 4
"""A search for the best quality within a cost measures that many counts of products up to the most."""


class SearchError(TfbertNpuError, ValueError):
    """No recipe reaches what was demanded; the message says what the best one reaches.

    Attributes:
        evidence: What was measured until then, as plain JSON.
    """

    def __init__(
        self, cause: str, remedy: str | None = None, evidence: Mapping[str, Any] | None = None
    ) -> None:
        super().__init__(cause, remedy)
        self.evidence = dict(evidence or {})


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
        recipe = self.recipe.as_dict()
        return {
            "float16": recipe["float16"],
            "rounding": recipe["rounding"],
            "cost": round(self.cost, 4),
            "mb_moved": round(self.mb_moved, 2),
            "quality": self.quality.as_dict(),
        }


class Measures(Protocol):
    """What a search needs of an `export.study.Study`."""

    @property
    def operators(self) -> Sequence[Operator]:
        """The products to choose from."""

    def screen(self, float16: Sequence[Operator]) -> Trial:
        """Measure quickly, to compare products with each other."""

    def measure(self, float16: Sequence[Operator]) -> Trial:
        """Measure what the export will give."""


@dataclass(frozen=True)
class Found:
    """The result of a search."""

    chosen: Trial
    frontier: tuple[Trial, ...]
    """Trials of what an export gives that no other one beats in cost and worst cosine, the cheapest first."""
    screened: tuple[Trial, ...]
    """Trials with weights rounded to nearest, by which products were compared: none in float16, and each
    alone."""

    def as_dict(self) -> dict[str, Any]:
        """As plain JSON."""
        return {"chosen": self.chosen.as_dict(), **evidence(self.frontier, self.screened)}


def evidence(frontier: Sequence[Trial], screened: Sequence[Trial]) -> dict[str, Any]:
    """What was measured, as plain JSON."""
    return {
        "frontier": [trial.as_dict() for trial in frontier],
        "screened": [trial.as_dict() for trial in screened],
    }


def search(study: Measures, *, min_cosine: float | None = None, max_cost: float | None = None) -> Found:
    """Find what to keep in float16.

    Args:
        study: Measures.
        min_cosine: Least cosine of the worst text: the cheapest recipe that has it.
        max_cost: Largest share of float16's cycles: the best recipe within it.

    Raises:
        ValueError: Neither is given.
        SearchError: They cannot be met; its `evidence` is what was measured.
    """
    if min_cosine is None and max_cost is None:
        raise ValueError("give min_cosine, max_cost or both")
    measured: dict[int, Trial] = {}
    screened: list[Trial] = []

    def failed(cause: str, remedy: str) -> SearchError:
        return SearchError(cause, remedy, evidence(frontier_of(measured.values()), screened))

    bare = measured[0] = study.measure(())
    if max_cost is not None and bare.cost > max_cost:
        raise failed(
            f"max_cost {max_cost:g} cannot be met: with every product in int8 it is {bare.cost:.3f} of "
            "float16's cycles",
            "allow more, or take fewer side_neurons",
        )
    if min_cosine is not None and bare.quality.cosine >= min_cosine:
        return Found(bare, (bare,), ())
    screened += [study.screen(()), *(study.screen((operator,)) for operator in study.operators)]
    order = _by_gain(study.operators, screened)
    most = _count_within(study, order, max_cost)

    def at(count: int) -> Trial:
        if count not in measured:
            measured[count] = study.measure(order[:count])
        return measured[count]

    if min_cosine is None:
        for part in range(1, _PARTS + 1):
            at(most * part // _PARTS)
        chosen = max(measured.values(), key=lambda trial: trial.quality.cosine)
    else:
        best = at(most)
        if best.quality.cosine < min_cosine:
            within = "" if max_cost is None else f" within max_cost {max_cost:g}"
            raise failed(
                f"min_cosine {min_cosine:g} cannot be met{within}: the worst text's cosine is at best "
                f"{best.quality.cosine:.5f}",
                "demand less or use fp16",
            )
        low, high = 0, most
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (low, middle) if at(middle).quality.cosine >= min_cosine else (middle, high)
        chosen = at(high)
    return Found(chosen, frontier_of(measured.values()), tuple(screened))


def frontier_of(trials: Iterable[Trial]) -> tuple[Trial, ...]:
    """The trials that none beats in both cost and worst cosine, the cheapest first."""
    best: list[Trial] = []
    for trial in sorted(trials, key=lambda one: (one.cost, -one.quality.cosine)):
        if not best or trial.quality.cosine > best[-1].quality.cosine:
            best.append(trial)
    return tuple(best)


def _by_gain(operators: Sequence[Operator], screened: Sequence[Trial]) -> list[Operator]:
    """Operators in falling order of what each gains for a cycle when it alone stays in float16."""
    bare, *alone = screened
    gains = {
        operator: (bare.error - trial.error) / max(trial.cost - bare.cost, 1e-6)
        for operator, trial in zip(operators, alone, strict=True)
    }
    return sorted(operators, key=lambda operator: -gains[operator])


def _count_within(study: Measures, order: Sequence[Operator], max_cost: float | None) -> int:
    """How many of the first operators in order can be float16 within the cost."""
    if max_cost is None:
        return len(order)
    low, high = 0, len(order) + 1
    while high - low > 1:
        middle = (low + high) // 2
        if study.screen(order[:middle]).cost <= max_cost:
            low = middle
        else:
            high = middle
    return low
