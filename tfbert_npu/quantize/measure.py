"""How good a compiled model is on texts: worst cosine, and whether similarities keep their order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from tfbert_npu.artifact.agreement import text_scores
from tfbert_npu.heads import OutputSpec


@dataclass(frozen=True)
class Quality:
    """Agreement with the float32 model over texts, at real tokens."""

    worst: Mapping[str, float]
    """For each output the cosine of the worst text."""
    median: Mapping[str, float]
    spearman: float | None
    """Spearman's rank correlation of the cosine similarities of all pairs of texts, by mean pooling of
    `sequence_output`; None without that output or with fewer than three texts."""
    texts: int

    @property
    def cosine(self) -> float:
        """The worst text's cosine of the worst output."""
        return min(self.worst.values())

    def as_dict(self) -> dict[str, Any]:
        """As plain JSON."""
        return asdict(self)


def quality(
    got: Sequence[Mapping[str, np.ndarray]],
    expected: Sequence[Mapping[str, np.ndarray]],
    batches: Sequence[Mapping[str, np.ndarray]],
    specs: Sequence[OutputSpec],
) -> Quality:
    """Compare outputs, batch by batch.

    Args:
        got: Outputs of the compiled model by name, [B, ...] each.
        expected: Those of the float32 model.
        batches: The inputs; of these the `input_mask` int [B, S] is used.
        specs: The outputs, and what their axes are.
    """
    masks = [batch["input_mask"] for batch in batches]
    cosines = {
        spec.name: text_scores(
            [one[spec.name] for one in got], [one[spec.name] for one in expected], masks, spec
        )
        for spec in specs
    }
    texts = len(next(iter(cosines.values())))
    spearman = None
    if "sequence_output" in expected[0] and texts > 2:
        ours, theirs = (
            np.concatenate(
                [
                    mean_pooled(a["sequence_output"], b["input_mask"])
                    for a, b in zip(side, batches, strict=True)
                ]
            )
            for side in (got, expected)
        )
        spearman = rank_correlation(_similarities(ours), _similarities(theirs))
    return Quality(
        {name: min(found) for name, found in cosines.items()},
        {name: float(np.median(found)) for name, found in cosines.items()},
        spearman,
        texts,
    )


def mean_pooled(hidden: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Mean over real tokens, [B, S, H] -> [B, H], of unit length (sentence-transformers' mean pooling)."""
    weights = mask[..., None].astype(np.float64)
    mean = (hidden * weights).sum(axis=1) / np.maximum(weights.sum(axis=1), 1)
    return np.asarray(mean / np.maximum(np.linalg.norm(mean, axis=-1, keepdims=True), 1e-12))


def rank_correlation(a: np.ndarray, b: np.ndarray) -> float:
    """Spearman's rank correlation of two vectors; ties share their mean rank."""
    return float(np.corrcoef(_ranks(a), _ranks(b))[0, 1])


def _ranks(values: np.ndarray) -> np.ndarray:
    _, where, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return np.asarray((last - (counts - 1) / 2)[where])


def _similarities(vectors: np.ndarray) -> np.ndarray:
    return np.asarray((vectors @ vectors.T)[np.triu_indices(len(vectors), 1)])
