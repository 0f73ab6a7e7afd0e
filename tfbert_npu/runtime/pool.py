"""Contexts at work: each has a thread of its own, and all take calls from one queue.

A native call cannot be interrupted. Who waits for one waits with a limit, and when that has passed the
context is given up together with its thread: a new one takes its place, and the call is made once more there.
"""

from __future__ import annotations

import logging
import os
import queue
import threading
import time
from collections.abc import Callable, Sequence

import numpy as np

from tfbert_npu.runtime.backend import Arrays, Backend
from tfbert_npu.runtime.calls import Call, Slot
from tfbert_npu.runtime.errors import BackendError, BackendTimeoutError, FailedCallError
from tfbert_npu.runtime.stats import CoreStats

_CLOSE_SECONDS = 5.0
_ATTEMPTS = 2
_FAILURES_OF_A_CORE = 3

logger = logging.getLogger("tfbert_npu")


class _Worker(threading.Thread):
    """A thread that makes a context, computes calls with it, and releases it."""

    def __init__(self, pool: Pool, place: int) -> None:
        super().__init__(name=f"tfbert-npu-core-{place}", daemon=True)
        self.place = place
        self.given_up = False
        self.ready = threading.Event()
        self.failure: Exception | None = None
        self._pool = pool

    def run(self) -> None:
        pool, slot = self._pool, self._pool.slots[self.place]
        try:
            backend = pool.factories[self.place]()
        except Exception as error:  # noqa: BLE001 - handed to whoever waits for this context
            self.failure = error
            pool.left(self)
            self.ready.set()
            return
        self.ready.set()
        try:
            while not self.given_up:
                call = pool.queue.get()
                if call is None:
                    break
                self._answer(backend, call, slot)
                del call  # or the last call's arrays would live until the next one
        finally:
            try:
                backend.close()
            finally:
                pool.left(self)

    def _answer(self, backend: Backend, call: Call, slot: Slot) -> None:
        with self._pool.lock:
            if call.cancelled:
                return
            call.attempts += 1
            attempt = call.attempts
            call.worker = self
            call.started = started = time.monotonic()
            slot.wait_seconds += started - call.queued
        outputs, failure = None, None
        try:
            outputs = backend.run(call.inputs)
        except Exception as error:  # noqa: BLE001 - raised again in the thread that waits for the call
            failure = error
        with self._pool.lock:
            if self.given_up or call.cancelled or call.attempts != attempt:
                return  # too late: somebody else has it, or nobody waits for it any more
            slot.run_seconds += time.monotonic() - started
            if isinstance(failure, FailedCallError):
                slot.errors += 1
                self._pool.replace_failed(self, call, failure)
                return
            slot.failed_in_a_row = 0
            if failure is None:
                slot.calls += 1
                slot.computed_tokens += _tokens(call.inputs)
            else:
                slot.errors += 1
            call.finish(outputs, failure)


class Pool:
    """Contexts of one model.

    Args:
        factories: One function for each place, which makes its context.
        cores: The NPU core of each place, for the statistics.
        timeout: Seconds that one call may take; None for no limit.
        lend_timeout: Seconds that a call may wait for a free context.
        start_timeout: Seconds that making all contexts may take.

    Raises:
        Exception: What a factory raised; the contexts that were made are released.
    """

    def __init__(
        self,
        factories: Sequence[Callable[[], Backend]],
        cores: Sequence[int | None],
        *,
        timeout: float | None,
        lend_timeout: float = 60.0,
        start_timeout: float = 120.0,
    ) -> None:
        self.factories = list(factories)
        self.queue: queue.SimpleQueue[Call | None] = queue.SimpleQueue()
        self.slots = [Slot() for _ in self.factories]
        self.lock = threading.Lock()
        self._cores = list(cores)
        self._timeout = timeout
        self._lend_timeout = lend_timeout
        self._process = os.getpid()
        self._closed = False
        self._working: set[_Worker] = set()
        self._last_failure: Exception | None = None
        with self.lock:
            workers = [self._start(place) for place in range(len(self.factories))]
        deadline = time.monotonic() + start_timeout
        for worker in workers:
            if not worker.ready.wait(max(deadline - time.monotonic(), 0)):
                self.close()
                raise BackendTimeoutError(
                    f"a context was not ready after {start_timeout:g} s",
                    "`tfbert-npu doctor` looks at the driver",
                )
        failed = [worker for worker in workers if worker.failure is not None]
        for worker in failed:
            if len(failed) == len(workers) or not isinstance(worker.failure, FailedCallError):
                self.close()
                assert worker.failure is not None
                raise worker.failure
        for worker in failed:  # drivers 0.9.2 to 0.9.5 are known for it
            logger.warning("%s; core %s is left out", worker.failure, self._cores[worker.place])

    @property
    def size(self) -> int:
        """How many calls can run at the same time."""
        return len(self.factories)

    @property
    def gone(self) -> bool:
        """Whether every context has failed."""
        return not self._working and not self._closed

    def run(self, batches: Sequence[Arrays]) -> list[dict[str, np.ndarray]]:
        """Compute batches, side by side where there are contexts enough; results in the batches' order.

        Raises:
            BackendError: A call failed; those that had not begun are called off.
            BackendTimeoutError: A call hung on two contexts, or none was free in time.
        """
        if os.getpid() != self._process:
            raise BackendError(
                "the model was loaded before this process was forked", "load it in the process that uses it"
            )
        if self._closed:
            raise BackendError("the model is closed", "load the artifact again")
        if not self._working:
            raise BackendError(
                "no context is left after failures", "load the artifact again"
            ) from self._last_failure
        calls = [Call(batch) for batch in batches]
        for call in calls:
            self.queue.put(call)
        self._drain()  # the last context may have gone meanwhile
        try:
            return [self._outputs(call) for call in calls]
        except BaseException:
            with self.lock:
                for call in calls:
                    call.cancelled = True
            raise

    def replace_failed(self, worker: _Worker, call: Call, failure: FailedCallError) -> None:
        """Give up a context that did not compute a call, and have another one make the call.

        For one who holds the lock. A core whose contexts fail one after the other is left out, unless it is
        the last one.
        """
        slot = self.slots[worker.place]
        slot.failed_in_a_row += 1
        worker.given_up = True
        self._working.discard(worker)
        self._last_failure = failure
        if self._closed:
            call.finish(None, failure)
            return
        if slot.failed_in_a_row < _FAILURES_OF_A_CORE or not self._working:
            slot.replaced += 1
            self._start(worker.place)
        else:
            logger.warning("%s; core %s is left out from now on", failure, self._cores[worker.place])
        if call.attempts < _ATTEMPTS * len(self.factories) + 1:
            call.started, call.worker, call.queued = None, None, time.monotonic()
            self.queue.put(call)
        else:
            call.finish(None, failure)

    def left(self, worker: _Worker) -> None:
        """Called by a worker's thread when it ends; the last one fails what still waits."""
        with self.lock:
            self._working.discard(worker)
            if worker.failure is not None:
                self._last_failure = worker.failure
        self._drain()

    def stats(self) -> tuple[tuple[CoreStats, ...], float]:
        """Figures of each place, and the seconds that calls waited for a context."""
        with self.lock:
            cores = tuple(
                CoreStats(
                    core=core,
                    calls=slot.calls,
                    errors=slot.errors,
                    computed_tokens=slot.computed_tokens,
                    run_seconds=slot.run_seconds,
                    replaced=slot.replaced,
                )
                for core, slot in zip(self._cores, self.slots, strict=True)
            )
            return cores, sum(slot.wait_seconds for slot in self.slots)

    def close(self) -> None:
        """Let the calls in progress end, release the contexts, and fail what comes later.

        A context whose call hangs is left behind. In a forked child nothing is released: the contexts are the
        parent's.
        """
        if self._closed or os.getpid() != self._process:
            self._closed = True
            return
        self._closed = True
        with self.lock:
            workers = list(self._working)
        for _ in workers:
            self.queue.put(None)
        deadline = time.monotonic() + _CLOSE_SECONDS
        for worker in workers:
            if worker is not threading.current_thread():
                worker.join(max(deadline - time.monotonic(), 0))

    def _start(self, place: int) -> _Worker:
        """Start a worker; for one who holds the lock, so that whoever looks finds it counted."""
        worker = _Worker(self, place)
        self._working.add(worker)
        worker.start()
        return worker

    def _outputs(self, call: Call) -> dict[str, np.ndarray]:
        while not call.wait(self._patience(call)):
            self._overdue(call)
        if call.error is not None:
            raise call.error
        assert call.outputs is not None
        return call.outputs

    def _left(self, call: Call) -> float:
        """Seconds until the call is overdue."""
        started, now = call.started, time.monotonic()
        if started is None:
            return call.queued + self._lend_timeout - now
        if self._timeout is None:
            return threading.TIMEOUT_MAX
        return started + self._timeout - now

    def _patience(self, call: Call) -> float:
        """Seconds to wait before looking again: a call that has not begun may begin at any time."""
        left = self._left(call)
        return left if self._timeout is None else min(left, self._timeout)

    def _overdue(self, call: Call) -> None:
        """Decide what becomes of a call whose time has passed."""
        with self.lock:
            if call.answered or self._left(call) > 0:
                return  # it was answered or begun just now
            worker = call.worker
            if call.started is None or worker is None:
                call.cancelled = True
                raise BackendTimeoutError(
                    f"no context was free within {self._lend_timeout:g} s",
                    "load the model on more cores, send fewer requests at a time, or raise lend_timeout",
                )
            again = call.attempts < _ATTEMPTS and not self._closed
            if again:
                call.started, call.worker, call.queued = None, None, time.monotonic()
                self.queue.put(call)
            else:
                call.cancelled = True
            if not worker.given_up:
                worker.given_up = True
                self._working.discard(worker)
                self.slots[worker.place].replaced += 1
                self.slots[worker.place].errors += 1
                if not self._closed:
                    self._start(worker.place)
        if not again:
            raise BackendTimeoutError(
                f"a call took longer than {self._timeout:g} s on {call.attempts} contexts, which were given "
                "up",
                "raise timeout, or see `tfbert-npu doctor`",
            )

    def _drain(self) -> None:
        """Fail what waits if nobody is left to take it."""
        with self.lock:
            if self._working:
                return
        while True:
            try:
                call = self.queue.get_nowait()
            except queue.Empty:
                return
            if call is not None:
                call.finish(None, self._gone())

    def _gone(self) -> BackendError:
        if self._closed:
            return BackendError("the model was closed before this call began", "load the artifact again")
        if isinstance(self._last_failure, FailedCallError):
            return self._last_failure
        error = BackendError(f"no context is left: {self._last_failure}", "load the artifact again")
        error.__cause__ = self._last_failure
        return error


def _tokens(inputs: Arrays) -> int:
    batch, length = next(iter(inputs.values())).shape[:2]
    return int(batch * length)
