"""Measures recipes that differ in which products stay in float16, in the vendor's simulator."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import TracebackType

from tfbert_npu._files import scratch_directory
from tfbert_npu.checkpoints.state import State
from tfbert_npu.export.gate import MIN_COSINE
from tfbert_npu.export.source import ExportSource, graph_of, outputs_of
from tfbert_npu.onnx.model import GraphOptions
from tfbert_npu.onnx.running import prepared, run_onnx
from tfbert_npu.onnx.signature import Signature
from tfbert_npu.quantize.measure import Quality, quality
from tfbert_npu.quantize.plan import Batches, Transformed, rounded_state, transform
from tfbert_npu.quantize.recipe import Operator, Recipe, operators
from tfbert_npu.quantize.samples import with_positions
from tfbert_npu.quantize.search import SearchError, Trial
from tfbert_npu.rknn.compiler import Compiler
from tfbert_npu.rknn.cost import Cost, cost_at
from tfbert_npu.rknn.hybrid import HybridModel
from tfbert_npu.rknn.options import RknnOptions
from tfbert_npu.rknn.toolchain.environment import Toolchain
from tfbert_npu.rknn.worker import Limits, VendorSession

_PROBES = 12


class Study:
    """Measures recipes that differ in what stays in float16, on some of the calibration texts.

    A context manager; the transforms and the rounding of weights are done once.

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
        self.start = start or Recipe()
        self._say = say
        self._source, self._options = source, options
        self._toolchain, self._log, self._limits = toolchain, log, limits
        if options.masked_positions is not None:
            calibration = with_positions(calibration, options.masked_positions)
        self._calibration = calibration
        self._graph = GraphOptions(
            outputs=options.outputs, embeddings=options.embeddings, masked_positions=options.masked_positions
        )

    def __enter__(self) -> Study:
        self._say("transforming the weights for int8")
        self._transformed, self._rounded = self._prepare()
        self._fed = prepared(self._source.state, self._calibration, self._options.embeddings)
        step = max(1, len(self._fed) // _PROBES)
        self._probes = self._fed[step // 2 :: step][:_PROBES]
        self._masks = self._calibration[step // 2 :: step][:_PROBES]
        self._directory = scratch_directory()
        original = graph_of(self._source, self._graph)
        self._signature = Signature.of(original)
        path = Path(self._directory.name) / "model.onnx"
        path.write_bytes(original.SerializeToString())
        self._shapes = self._options.shapes[:1]
        self._compiler = Compiler(path, self._signature, self._options, self._source.config)
        self._expected = run_onnx(path, self._probes)
        self._session = VendorSession(self._toolchain, self._log, self._limits)
        try:
            self._say("compiling in float16, to compare")
            costs, _ = self._compiler.compile(self._session, self._shapes)
            self._float16 = costs[self._shapes[0]]
            self._check_float16()
            self._screened = self._step1(self._session, self._transformed.state)
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._session.close()
        self._directory.cleanup()

    def screen(self, float16: Sequence[Operator]) -> Trial:
        """As `measure`, but with weights rounded to nearest: in a fraction of the time.

        What one product gains over another hardly depends on how the weights are rounded, and the cycles do
        not at all.
        """
        return self._trial(replace(self.start, rounding="nearest", float16=frozenset(float16)))

    def measure(self, float16: Sequence[Operator]) -> Trial:
        """Build with these products in float16 and compare with the model."""
        return self._trial(replace(self.start, float16=frozenset(float16)))

    def _prepare(self) -> tuple[Transformed, State]:
        """The transformed model, and its state with every product's weights rounded as the recipe says."""
        transformed, seen = transform(self._source.config, self._source.state, self.start, self._calibration)
        state = rounded_state(transformed, replace(self.start, float16=frozenset()), seen)
        return transformed, state

    def _trial(self, recipe: Recipe) -> Trial:
        for known in self.trials:
            if known.recipe == recipe:
                return known
        with self._built(recipe) as (session, cost):
            got = self._quality(session)
        trial = Trial(recipe, got, cost.cycles / self._float16.cycles, cost.kib / 1024)
        self.trials.append(trial)
        self._say(
            f"{len(recipe.float16)} products in float16, weights by {recipe.rounding}: worst cosine "
            f"{got.cosine:.5f} at {trial.cost:.3f} of float16's cycles"
        )
        return trial

    @contextmanager
    def _built(self, recipe: Recipe) -> Iterator[tuple[VendorSession, Cost]]:
        """A session that simulates the recipe, and the recipe's cost."""
        ranges, shape = self._transformed.ranges, self._shapes[0]
        if recipe.rounding == "nearest":
            yield self._session, cost_at(self._screened.build(recipe, ranges), shape)
            return
        # What stays in float16 keeps its own weights.
        state = dict(self._rounded)
        for operator in recipe.float16:
            for name in (f"{operator.weights}.weight", f"{operator.weights}.bias"):
                state[name] = self._transformed.state[name]
        with VendorSession(self._toolchain, self._log, self._limits) as session:
            model = self._step1(session, state)
            yield session, cost_at(model.build(recipe, ranges), shape)

    def _step1(self, session: VendorSession, state: State) -> HybridModel:
        graph = graph_of(replace(self._source, state=state), self._graph)
        self._compiler.onnx_path.write_bytes(graph.SerializeToString())
        return self._compiler.hybrid(session, self._shapes, self._fed)

    def _check_float16(self) -> None:
        found = self._quality(self._session)
        if not found.cosine >= MIN_COSINE["fp16"]:
            raise SearchError(
                f"the model's cosine in float16 is only {found.cosine:.5f}, and int8 cannot do better",
                'export it with precision="fp16" and see why its gate fails',
            )

    def _quality(self, session: VendorSession) -> Quality:
        got = [self._signature.simulate(session, batch) for batch in self._probes]
        specs = outputs_of(self._source, self._options.outputs, self._options.masked_positions is not None)
        return quality(got, self._expected, self._masks, specs)
