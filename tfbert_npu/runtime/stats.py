"""What a loaded model has done since it was loaded."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class CoreStats:
    """One context."""

    core: int | None
    """Number of the NPU core; None where there is no choice."""
    calls: int
    """Calls that it answered."""
    errors: int
    computed_tokens: int
    """Tokens that it computed, padding included."""
    run_seconds: float
    """Time inside of the backend."""
    replaced: int
    """How often it was given up because a call hung."""


@dataclass(frozen=True)
class Stats:
    """A loaded model: requests of its callers, and the calls that they became."""

    runs_on: str
    requests: int
    texts: int
    tokens: int
    """Real tokens, as the masks say."""
    computed_tokens: int
    """Tokens that were computed, padding included."""
    fallback_requests: int
    """Requests that something else answered by the policy `on_error`."""
    wait_seconds: float
    """Time that calls waited for a free context."""
    cores: tuple[CoreStats, ...]

    @property
    def padding_share(self) -> float:
        """The part of the computed tokens that was padding, from 0 to 1."""
        return 1 - self.tokens / self.computed_tokens if self.computed_tokens else 0.0

    @property
    def run_seconds(self) -> float:
        """Time inside of the backend, summed over the contexts."""
        return sum(core.run_seconds for core in self.cores)

    @property
    def calls(self) -> int:
        """Calls of the backend that were answered."""
        return sum(core.calls for core in self.cores)

    @property
    def errors(self) -> int:
        """Calls of the backend that failed."""
        return sum(core.errors for core in self.cores)
