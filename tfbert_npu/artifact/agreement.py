"""How close outputs are to a reference, text by text, as the outputs' axes ask for."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from tfbert_npu.heads import OutputSpec

Outputs = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Agreement:
    """How close one output is to the reference, over real tokens."""

    cosine: float
    """Worst score of a text, see `text_scores`."""
    max_abs: float
    """Largest absolute difference of a number."""
    not_finite: int
    """Numbers that are NaN or infinite, on either side."""
    relative: float = 0.0
    """Largest length of a text's difference over the length of its reference; a scale shows here alone."""

    def as_dict(self) -> dict[str, float]:
        """For the manifest."""
        return {"cosine": self.cosine, "max_abs": self.max_abs, "relative": self.relative}


def compare(
    got: Sequence[Outputs],
    expected: Sequence[Outputs],
    masks: Sequence[np.ndarray],
    specs: Iterable[OutputSpec],
) -> dict[str, Agreement]:
    """Compare outputs with their reference, batch by batch.

    Args:
        got: For each batch the outputs by name, [B, ...].
        expected: The same of the reference.
        masks: For each batch int [B, S]; what an output says at padding means nothing and is left out.
        specs: The outputs to compare, and what their axes are.

    Returns:
        For each output the agreement of the worst text.

    Raises:
        ValueError: An output has another shape than the reference.
    """
    found = {}
    for spec in specs:
        pairs = _texts([one[spec.name] for one in got], [one[spec.name] for one in expected], masks, spec)
        broken = sum(
            int(np.count_nonzero(~np.isfinite(a)) + np.count_nonzero(~np.isfinite(b))) for a, b in pairs
        )
        scores = _scores(pairs)
        largest = max((float(np.max(np.abs(a - b), initial=0.0)) for a, b in pairs), default=0.0)
        found[spec.name] = Agreement(
            cosine=-1.0 if broken else float(min(scores, default=1.0)),
            max_abs=float("inf") if broken else largest,
            not_finite=broken,
            relative=float("inf") if broken else max(_relative(pairs), default=0.0),
        )
    return found


def text_scores(
    got: Sequence[np.ndarray], expected: Sequence[np.ndarray], masks: Sequence[np.ndarray], spec: OutputSpec
) -> list[float]:
    """One score for each text, 1 for no difference.

    The score is the cosine of the text's numbers at real tokens. A single number has no direction: its cosine
    is 1 whatever its size. So where a text has one number, the score is 1 - d^2 / 2 s^2 for its difference d
    and the spread s (standard deviation) of the reference over all texts, which is what the cosine is for two
    vectors of length s. NaN on either side scores -1.
    """
    return _scores(_texts(got, expected, masks, spec))


def worst_of(agreements: Iterable[Mapping[str, Agreement]]) -> dict[str, Agreement]:
    """For each output, the worst of several comparisons."""
    worst: dict[str, Agreement] = {}
    for named in agreements:
        for name, one in named.items():
            before = worst.get(name, one)
            worst[name] = Agreement(
                cosine=min(one.cosine, before.cosine),
                max_abs=max(one.max_abs, before.max_abs),
                not_finite=max(one.not_finite, before.not_finite),
                relative=max(one.relative, before.relative),
            )
    return worst


def failures(agreements: Mapping[str, Agreement], min_cosine: float) -> list[str]:
    """What does not pass, in words; empty if all outputs do."""
    words = []
    for name, one in agreements.items():
        if one.not_finite:
            words.append(f"{name} holds {one.not_finite} numbers that are NaN or infinite")
        elif not one.cosine >= min_cosine:
            words.append(f"{name} has cosine {one.cosine:.6f}, below {min_cosine:g}")
    return words


def summary(agreements: Mapping[str, Agreement]) -> dict[str, dict[str, float]]:
    """Agreements as plain JSON."""
    return {name: one.as_dict() for name, one in agreements.items()}


def _texts(
    got: Sequence[np.ndarray], expected: Sequence[np.ndarray], masks: Sequence[np.ndarray], spec: OutputSpec
) -> list[tuple[np.ndarray, np.ndarray]]:
    """For each text its numbers on both sides, float64 [n]."""
    pairs = []
    for a, b, mask in zip(got, expected, masks, strict=True):
        a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
        if a.shape != b.shape:
            raise ValueError(f"{spec.name} has shape {a.shape} where the reference has {b.shape}")
        for row in range(len(a)):
            kept = mask[row].astype(bool) if spec.per_token else slice(None)
            pairs.append((np.atleast_1d(a[row])[kept].ravel(), np.atleast_1d(b[row])[kept].ravel()))
    return pairs


def _spread(pairs: Sequence[tuple[np.ndarray, np.ndarray]]) -> float:
    """What a difference of single numbers is measured by: the reference's spread over the texts."""
    finite = [b for _, b in pairs if np.isfinite(b).all()]
    if not finite:
        return 0.0
    # One text, or the same answer to all: its own size is all there is.
    return float(np.std(finite)) or float(np.max(np.abs(finite), initial=0.0))


def _relative(pairs: Sequence[tuple[np.ndarray, np.ndarray]]) -> list[float]:
    single = all(len(a) == 1 for a, _ in pairs)
    spread = _spread(pairs) if single else 0.0
    found = []
    for a, b in pairs:
        difference, size = float(np.linalg.norm(a - b)), spread or float(np.linalg.norm(b))
        found.append(difference / size if size else float(difference > 0))
    return found


def _scores(pairs: Sequence[tuple[np.ndarray, np.ndarray]]) -> list[float]:
    single = all(len(a) == 1 for a, _ in pairs)
    spread = _spread(pairs) if single else 0.0
    scores = []
    for a, b in pairs:
        if not (np.isfinite(a).all() and np.isfinite(b).all()):
            scores.append(-1.0)
        elif single:
            difference = float(abs(a[0] - b[0]))
            scores.append(max(-1.0, 1 - difference**2 / (2 * spread**2)) if spread else float(not difference))
        else:
            norms = np.linalg.norm(a) * np.linalg.norm(b)
            scores.append(float(a @ b / norms) if norms else float(np.array_equal(a, b)))
    return scores
