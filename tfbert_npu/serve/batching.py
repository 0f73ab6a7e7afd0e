"""Texts of many clients wait in one queue and are computed together by length."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from tfbert_npu.errors import TfbertNpuError

TextOrIds = str | Sequence[int]
Item = TextOrIds | tuple[str, str | None]
"""A text, its ids, or a text and its pair."""


class Embedder(Protocol):
    """What computes: `SentenceEncoder`, or anything with its `encode`."""

    def encode(
        self,
        texts: Sequence[Any],
        prompt_name: str | None = None,
        normalize: bool | None = None,
        dimensions: int | None = None,
        batch_size: int = 32,
    ) -> np.ndarray:
        """float32 [N, dimensions]."""
        ...


class QueueFullError(TfbertNpuError):
    """More texts wait than the queue takes; ask again later."""


class StoppingError(TfbertNpuError):
    """The service is stopping and takes no more texts."""


@dataclass(frozen=True)
class How:
    """What a request asks of its vectors; only texts that ask for the same are computed together."""

    prompt_name: str | None = None
    normalize: bool | None = None
    dimensions: int | None = None


@dataclass
class _Waiting:
    text: Item
    length: int
    how: How
    result: Future[np.ndarray] = field(default_factory=Future)


class Batcher:
    """A queue before an embedder, emptied by one thread for each of its cores.

    A thread takes the text that has waited longest and the others of the same kind that are nearest to it in
    length, so that little is padded and no text waits forever.

    Args:
        embedder: Computes; called from `workers` threads at once.
        workers: Threads.
        batch_size: Texts of a call at most.
        queue_size: Texts that may wait.
        observe: Called with the size of each batch, for metrics.
    """

    def __init__(
        self,
        embedder: Embedder,
        *,
        workers: int = 1,
        batch_size: int = 32,
        queue_size: int = 4096,
        observe: Callable[[int], None] = lambda size: None,
    ) -> None:
        self._embedder, self._batch_size, self._queue_size = embedder, batch_size, queue_size
        self._observe = observe
        self._waiting: list[_Waiting] = []
        self._changed = threading.Condition()
        self._stopping = False
        self._threads = [
            threading.Thread(target=self._work, name=f"embed-{number}", daemon=True)
            for number in range(workers)
        ]
        for thread in self._threads:
            thread.start()

    @property
    def depth(self) -> int:
        """Texts that wait."""
        return len(self._waiting)

    async def embed(self, texts: Sequence[Item], how: How, timeout: float) -> np.ndarray:
        """Embed the texts of one request.

        Args:
            texts: At least one.
            how: What is asked of the vectors.
            timeout: Seconds that the request may take; what of it still waits then is dropped.

        Returns:
            float32 [N, dimensions], in the order of the texts.

        Raises:
            QueueFullError: The queue has no room for all of them; none is taken.
            StoppingError: `close` was called.
            TimeoutError: The time is over.
        """
        items = [_Waiting(text, _length(text), how) for text in texts]
        with self._changed:
            if self._stopping:
                raise StoppingError("the service is stopping", "ask another instance")
            if len(self._waiting) + len(items) > self._queue_size:
                raise QueueFullError(
                    f"{len(self._waiting)} texts wait already, of {self._queue_size} at most",
                    "ask again later",
                )
            self._waiting.extend(items)
            self._changed.notify(len(items))
        results = asyncio.gather(*(asyncio.wrap_future(item.result) for item in items))
        try:
            return np.stack(await asyncio.wait_for(results, timeout))
        finally:
            for item in items:
                item.result.cancel()  # does nothing to what is done; drops what still waits

    def close(self) -> None:
        """Compute what was taken, then end the threads."""
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
        for thread in self._threads:
            thread.join()

    def _take(self) -> list[_Waiting] | None:
        with self._changed:
            while True:
                self._waiting = [item for item in self._waiting if not item.result.cancelled()]
                if self._waiting:
                    break
                if self._stopping:
                    return None
                self._changed.wait()
            oldest = self._waiting[0]
            alike = sorted(
                (item for item in self._waiting if item.how == oldest.how),
                key=lambda item: abs(item.length - oldest.length),
            )[: self._batch_size]
            chosen = set(map(id, alike))
            self._waiting = [item for item in self._waiting if id(item) not in chosen]
        return [item for item in alike if item.result.set_running_or_notify_cancel()]

    def _work(self) -> None:
        while (batch := self._take()) is not None:
            if not batch:
                continue
            self._observe(len(batch))
            how = batch[0].how
            try:
                vectors: Any = self._embedder.encode(
                    [item.text for item in batch], how.prompt_name, how.normalize, how.dimensions, len(batch)
                )
            except BaseException as error:  # noqa: BLE001 - it is the requests' to raise, not the thread's
                for item in batch:
                    item.result.set_exception(error)
                continue
            for item, vector in zip(batch, vectors, strict=True):
                item.result.set_result(vector)


def _length(item: Item) -> int:
    """How long it will take, about."""
    if isinstance(item, tuple):
        return sum(len(part) for part in item if isinstance(part, str))
    return len(item)
