"""`benchmark`: what calls of models take here, of several models or backends in turns."""

from __future__ import annotations

import itertools
import os
import resource
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field

import numpy as np

from tfbert_npu.runtime import soc
from tfbert_npu.runtime.doctor import Clock, examine
from tfbert_npu.tasks.loading import Backend, TaskModel, load
from tfbert_npu.tasks.running import Inputs, call, length_for, listed, pad

ModelName = str | os.PathLike[str]
_WARM_UP = 3
_SEED = 0


@dataclass(frozen=True)
class Timing:
    """What the requests of one contender took."""

    model: str
    backend: str
    instances: int
    """Requests at the same time, each on a context of its own."""
    requests: int
    texts: int
    tokens: int
    """Real tokens, padding not counted."""
    seconds: float
    p50_ms: float
    p95_ms: float
    p99_ms: float
    """Of a request, from its call to its answer; tokenizing is not in it."""
    texts_per_second: float
    tokens_per_second: float
    padding_share: float
    """The part of the computed tokens that was padding, from 0 to 1."""
    ratio: float
    """Texts per second in those of the first contender: the median over the rounds."""
    ratio_range: tuple[float, float]
    """The least and the greatest of the rounds."""


@dataclass(frozen=True)
class Benchmark:
    """The contenders' timings, and the machine they were taken on."""

    timings: tuple[Timing, ...]
    rounds: int
    request: str
    """What one request was."""
    peak_memory_mb: int
    """Of this process, with everything in it."""
    clocks: tuple[Clock, ...]
    """Of NPU and memory, after the last round; empty on a machine that does not say."""
    temperatures: dict[str, tuple[float, float]]
    """Of each thermal zone before and after, in degrees Celsius."""


@dataclass
class _Contender:
    name: str
    models: list[TaskModel]
    """One, which has as many contexts as instances, or one for each instance."""
    instances: int
    requests: list[Inputs]
    latencies: list[float] = field(default_factory=list)
    rates: list[float] = field(default_factory=list)
    seconds: float = 0.0
    texts: int = 0
    tokens: int = 0
    computed: int = 0

    def run(self, count: int | None, seconds: float | None) -> None:
        """One round: `count` requests, or as many as begin within `seconds`."""
        first = len(self.latencies)  # the texts go on where the last round ended
        numbers = itertools.count(first)
        before = self._computed()
        done: list[list[tuple[int, float]]] = [[] for _ in range(self.instances)]
        failures: list[BaseException] = []
        began = time.perf_counter()

        def ask(place: int) -> None:
            model = self.models[place % len(self.models)]
            for number in numbers:  # next() of a count is atomic
                start = time.perf_counter()
                if failures or (
                    number - first >= count if count is not None else start - began >= (seconds or 0)
                ):
                    return
                try:
                    call(model, self.requests[number % len(self.requests)])
                except BaseException as error:  # noqa: BLE001 - raised below, in the thread that asked for it
                    failures.append(error)
                    return
                done[place].append((number, time.perf_counter() - start))

        threads = [threading.Thread(target=ask, args=(place,)) for place in range(self.instances)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        took = time.perf_counter() - began
        if failures:
            raise failures[0]
        masks = [
            self.requests[number % len(self.requests)]["input_mask"] for own in done for number, _ in own
        ]
        texts = sum(len(mask) for mask in masks)
        self.latencies += [latency for own in done for _, latency in own]
        self.rates.append(texts / took)
        self.seconds += took
        self.texts += texts
        self.tokens += sum(int(mask.sum()) for mask in masks)
        after = self._computed()
        self.computed += sum(mask.size for mask in masks) if after is None else after - (before or 0)

    def _computed(self) -> int | None:
        npus = [model.npu for model in self.models]
        return None if None in npus else sum(npu.stats().computed_tokens for npu in npus if npu is not None)

    def timing(self, first: _Contender) -> Timing:
        p50, p95, p99 = np.percentile(self.latencies, [50, 95, 99]) * 1e3
        ratios = [own / other for own, other in zip(self.rates, first.rates, strict=True)]
        return Timing(
            model=self.name,
            backend=self.models[0].runs_on,
            instances=self.instances,
            requests=len(self.latencies),
            texts=self.texts,
            tokens=self.tokens,
            seconds=self.seconds,
            p50_ms=float(p50),
            p95_ms=float(p95),
            p99_ms=float(p99),
            texts_per_second=self.texts / self.seconds,
            tokens_per_second=self.tokens / self.seconds,
            padding_share=1 - self.tokens / self.computed if self.computed else 0.0,
            ratio=float(np.median(ratios)),
            ratio_range=(min(ratios), max(ratios)),
        )


def benchmark(
    models: ModelName | Sequence[ModelName],
    *,
    backends: Sequence[Backend] = ("auto",),
    instances: Sequence[int] = (1,),
    shape: tuple[int, int] | None = None,
    texts: Sequence[str] | None = None,
    batch: int = 1,
    threads: int | None = None,
    requests: int | None = None,
    duration: float | None = None,
    rounds: int = 5,
    file: str | None = None,
) -> Benchmark:
    """Time models against each other: every model on every backend with every number of instances.

    After a warm-up they take turns, round by round, so that a machine that slows down slows all of them.

    Args:
        models: Checkpoints, hub repositories or artifacts.
        backends: See `load`.
        instances: Requests at the same time: as many NPU contexts, each on a core, or as many sessions.
        shape: Batch and length in tokens of a request of random ids without padding; by default 1 and the
            artifact's longest shape, or 128.
        texts: Texts of real lengths instead, in their order and again from the first.
        batch: Of `texts`, how many are a request.
        threads: CPU threads of each session of the `onnx` backend.
        requests: Requests of each contender in all, by default 100.
        duration: Seconds of each contender in all, instead of `requests`.
        rounds: Turns.
        file: The one of an artifact's `.rknn` files; see `load`.

    Raises:
        ValueError: An argument is impossible, or the simulator was asked for, whose time says nothing of an
            NPU.

    Example:
        >>> from tfbert_npu import tasks
        >>> found = tasks.benchmark("minilm-rk3588", instances=(1, 3), shape=(1, 64))  # doctest: +SKIP
        >>> [round(one.ratio, 1) for one in found.timings]  # doctest: +SKIP
        [1.0, 2.9]
    """
    _check(backends, instances, shape, texts, batch, requests, duration, rounds)
    names = [models] if isinstance(models, str | os.PathLike) else list(models)
    heat = soc.temperatures()
    with ExitStack() as opened:
        contenders = [
            _contender(opened, name, backend, count, threads, shape, texts, batch, file)
            for name in names
            for backend in backends
            for count in instances
        ]
        if duration is None:
            requests = requests or 100
            shares = [requests // rounds + (number < requests % rounds) for number in range(rounds)]
        for number in range(rounds):
            order = contenders[number % len(contenders) :] + contenders[: number % len(contenders)]
            for contender in order:
                contender.run(
                    None if duration is not None else shares[number],
                    None if duration is None else duration / rounds,
                )
        timings = tuple(contender.timing(contenders[0]) for contender in contenders)
    after = soc.temperatures()
    first = contenders[0].requests[0]["input_word_ids"].shape
    return Benchmark(
        timings=timings,
        rounds=rounds,
        request=f"{first[0]}x{first[1]} tokens" if texts is None else f"{batch} of {len(texts)} texts",
        peak_memory_mb=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
        clocks=examine().clocks,
        temperatures={zone: (heat[zone], after[zone]) for zone in heat.keys() & after.keys()},
    )


def _check(
    backends: Sequence[Backend],
    instances: Sequence[int],
    shape: tuple[int, int] | None,
    texts: Sequence[str] | None,
    batch: int,
    requests: int | None,
    duration: float | None,
    rounds: int,
) -> None:
    if "simulator" in backends:
        raise ValueError(
            "the simulator's time says nothing of an NPU; tfbert-npu inspect shows the predicted time"
        )
    if texts is not None and (not texts or shape is not None):
        raise ValueError("give texts, at least one, or a shape, not both")
    if requests is not None and duration is not None:
        raise ValueError("give requests or duration, not both")
    if shape is not None and batch != 1:
        raise ValueError("batch is for texts; a shape has its own")
    for what, value in (("batch", batch), ("rounds", rounds), *(("instances", one) for one in instances)):
        if value < 1:
            raise ValueError(f"{what} must be at least 1, got {value}")
    if requests is not None and requests < rounds:
        raise ValueError(f"{requests} requests are fewer than the {rounds} rounds; give more, or rounds=")


def _contender(
    opened: ExitStack,
    name: ModelName,
    backend: Backend,
    instances: int,
    threads: int | None,
    shape: tuple[int, int] | None,
    texts: Sequence[str] | None,
    batch: int,
    file: str | None,
) -> _Contender:
    first = opened.enter_context(load(name, backend=backend, cores=1, threads=threads, file=file))
    if first.npu is None or instances == 1:
        models = [first]  # TensorFlow shares its threads among all calls
    elif first.npu.backend == "rknn":
        first.close()
        models = [opened.enter_context(load(name, backend=backend, cores=instances, file=file))]
    else:
        more = (load(name, backend=backend, threads=threads, file=file) for _ in range(instances - 1))
        models = [first, *(opened.enter_context(one) for one in more)]
    requests = list(_random(first, shape) if texts is None else _real(first, texts, batch))
    made = _Contender(os.fspath(name), models, instances, requests)
    for model, request in itertools.product(models, requests[:_WARM_UP]):
        call(model, request)
    return made


def _random(model: TaskModel, shape: tuple[int, int] | None) -> Iterator[Inputs]:
    batch, length = shape or (1, length_for(model, None))
    rng = np.random.default_rng(_SEED)
    for _ in range(8):
        ids = rng.integers(0, model.config.vocab_size, (batch, length))
        yield {
            "input_word_ids": ids.astype(np.int32),
            "input_mask": np.ones((batch, length), np.int32),
            "input_type_ids": np.zeros((batch, length), np.int32),
        }


def _real(model: TaskModel, texts: Sequence[str], batch: int) -> Iterator[Inputs]:
    vocabulary, longest = model.tokenizer.vocabulary, length_for(model, None)
    rows = [
        [vocabulary.cls_id, *model.tokenizer.encode(text)[: longest - 2], vocabulary.sep_id]
        for text in listed(texts)
    ]
    for start in range(0, len(rows), batch):
        yield pad(rows[start : start + batch], None, vocabulary.pad_id)
