"""`NpuModel`: requests of any batch and length, computed at the shapes that a backend takes."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

import numpy as np

from tfbert_npu.artifact.embeddings import HostEmbeddings
from tfbert_npu.artifact.manifest import TensorSpec
from tfbert_npu.artifact.packing import apart, feed, pack
from tfbert_npu.config import BertConfig
from tfbert_npu.inputs import MASK, MLM_POSITIONS, TYPE_IDS, WORD_IDS, check_inputs
from tfbert_npu.runtime.backend import Arrays, BackendName, Shape
from tfbert_npu.runtime.batches import as_integers, assembled, check_finite, check_types, fit
from tfbert_npu.runtime.errors import BackendError
from tfbert_npu.runtime.failover import Failover
from tfbert_npu.runtime.files import Artifact, VerifiedFile
from tfbert_npu.runtime.pool import Pool
from tfbert_npu.runtime.router import Placement, place, real_lengths
from tfbert_npu.runtime.stats import Stats

BIAS, SEQUENCE, POOLED = "attention_bias", "sequence_output", "pooled_output"
_HIDDEN_STATE = "encoder_outputs_"

Outputs = dict[str, Any]
Fallback = Callable[[Arrays], Outputs]


@dataclass
class _Held:
    """What must be given back; apart from the model, so that its finaliser can hold it."""

    files: Sequence[VerifiedFile]
    pool: Pool | None = None
    close_fallback: Callable[[], None] | None = None

    def close(self) -> None:
        if self.pool is not None:
            self.pool.close()
        if self.close_fallback is not None:
            self.close_fallback()
        for file in self.files:
            file.close()


@dataclass
class _Counted:
    requests: int = 0
    texts: int = 0
    tokens: int = 0
    computed_tokens: int = 0
    fallback_requests: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)


class NpuModel:
    """A loaded artifact; made by `load_npu`.

    Call it with a dict of integer arrays [B, S]: `input_word_ids`, `input_mask` and, unless the model is a
    DistilBERT, `input_type_ids`; a masked language model may take `masked_lm_positions` [B, P] as well. It
    gives a dict of float32 arrays. An encoder gives `pooled_output` [B, H] and `default`, the same once more,
    `sequence_output` [B, S, H], and `encoder_outputs`, a list of [B, S, H], if the artifact was exported with
    all of them; another head gives its logits. Values at padded positions mean nothing and may be 0.

    Rows are computed at their own lengths, whatever the width of the batch. Calls from any number of threads
    run side by side, one on each context. A context manager; leaving it closes the model.
    """

    def __init__(
        self,
        artifact: Artifact,
        name: BackendName,
        files: Sequence[VerifiedFile],
        make_pool: Callable[[], Pool],
        shapes: Sequence[Shape],
        *,
        truncate: bool,
        check_finite: bool,
        fallback: tuple[str, Fallback] | None,
        retry_after: float,
    ) -> None:
        self.manifest = artifact.manifest
        self.config: BertConfig = artifact.config
        self.directory = artifact.directory
        self.backend = name
        self.shapes = tuple(shapes)
        self._given: tuple[TensorSpec, ...] = files[0].model.outputs
        self.packed = any(s.name == BIAS and len(s.shape) == 3 for s in files[0].model.inputs)
        """Whether a row of the file holds several texts; the pooler is then computed here."""
        own = [TensorSpec(POOLED, "float32", (-1, self.config.hidden_size))] if self._pools else []
        self.outputs: tuple[TensorSpec, ...] = (*self._given, *own)
        # In the model's order: the first one, ids or embeddings, has the shape of the call.
        self._names = tuple(spec.name for spec in files[0].model.inputs)
        self._other_integers = {
            spec.name: np.dtype(spec.dtype)
            for spec in files[0].model.inputs
            if spec.dtype not in ("int32", "float32")
        }
        self._positions = next((s.shape[1] for s in files[0].model.inputs if s.name == MLM_POSITIONS), None)
        self._longest = max((length for _, length in shapes), default=self.config.max_position_embeddings)
        self._host: HostEmbeddings | None = artifact.embeddings()
        self._truncate = truncate
        self._check_finite = check_finite
        self._make_pool = make_pool
        self._fallback = fallback
        self._failover = Failover(name, fallback[0] if fallback else "", retry_after)
        self._counted = _Counted()
        self._revive = threading.Lock()
        close_fallback = None if fallback is None else getattr(fallback[1], "close", None)
        self._held = _Held(files, close_fallback=close_fallback)
        self._finalizer = weakref.finalize(self, _Held.close, self._held)
        try:
            self._held.pool = make_pool()
        except BackendError as error:
            if fallback is None:
                self.close()
                raise
            self._failover.failed(error)
        except BaseException:
            self.close()
            raise

    def __call__(self, inputs: Mapping[str, Any]) -> Outputs:
        """Compute a request; see the class for inputs and outputs.

        Raises:
            ValueError: The inputs are not what the model takes, or a text is longer than every shape.
            BackendError: The backend failed, and nothing stands in for it.
        """
        return self.run(check_inputs(inputs, self.config, mlm=MLM_POSITIONS in inputs))

    def run(self, inputs: Arrays) -> Outputs:
        """Compute a request that `check_inputs` has seen: integer arrays [B, S] with ids in range."""
        inputs = {
            name: value if value.dtype == np.int32 else value.astype(np.int32)
            for name, value in inputs.items()
        }
        if not self._finalizer.alive:
            raise BackendError("the model is closed", "load the artifact again")
        if self._fallback is None:
            return self._compute(inputs)
        if self._failover.should_try():
            try:
                outputs = self._compute(inputs)
            except BackendError as error:
                self._failover.failed(error)
            else:
                self._failover.succeeded()
                return outputs
        with self._counted.lock:
            self._counted.fallback_requests += 1
        return self._fallback[1](inputs)

    @property
    def output_names(self) -> tuple[str, ...]:
        """The keys of what a call gives."""
        names = [spec.name for spec in self.outputs if not spec.name.startswith(_HIDDEN_STATE)]
        if len(names) < len(self.outputs):
            names.append("encoder_outputs")
        return tuple(names)

    @property
    def runs_on(self) -> str:
        """What computes: the backend's name, or the stand-in's together with why."""
        return self._failover.runs_on

    @property
    def contexts(self) -> int:
        """How many calls run at the same time."""
        return self._held.pool.size if self._held.pool is not None else 0

    def stats(self) -> Stats:
        """What was done since the model was loaded."""
        counted, pool = self._counted, self._held.pool
        cores, waited = pool.stats() if pool is not None else ((), 0.0)
        with counted.lock:
            return Stats(
                runs_on=self.runs_on,
                requests=counted.requests,
                texts=counted.texts,
                tokens=counted.tokens,
                computed_tokens=counted.computed_tokens,
                fallback_requests=counted.fallback_requests,
                wait_seconds=waited,
                cores=cores,
            )

    def close(self) -> None:
        """Let calls in progress end and free everything; a second call does nothing."""
        self._finalizer()

    def __enter__(self) -> NpuModel:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def flat(self, inputs: dict[str, np.ndarray], shape: Shape | None = None) -> dict[str, np.ndarray]:
        """Compute a request without the fallback; outputs are the file's own, by name.

        Args:
            inputs: As in `run`, int32.
            shape: Take this compiled shape for every call; by default what costs least.

        Raises:
            BackendError: The backend failed, or the model is closed.
        """
        pool = self._held.pool
        if pool is None or pool.gone:
            pool = self._revived()
        batch, length = inputs[WORD_IDS].shape
        mask = inputs[MASK]
        positions = inputs.get(MLM_POSITIONS)
        lengths = real_lengths(mask)
        if positions is not None and positions.size:
            lengths = np.maximum(lengths, positions.max(axis=1) + 1)
        if batch and int(lengths.max()) > self._longest:
            inputs, lengths = self._shortened(inputs, lengths)
        shapes = self.shapes if shape is None else (shape,)
        if self.packed:
            return self._flat_packed(pool, inputs, lengths, shapes)
        placements = place(lengths, shapes, pool.size)
        results = pool.run([self._padded(inputs, placement) for placement in placements])
        self._count(mask, sum(placement.computed_tokens for placement in placements))
        if self._check_finite:
            check_finite(results, [(placement.shape, len(placement.rows)) for placement in placements])
        return {
            spec.name: assembled(spec, placements, [result[spec.name] for result in results], batch, length)
            for spec in self.outputs
        }

    def _flat_packed(
        self, pool: Pool, inputs: dict[str, np.ndarray], lengths: np.ndarray, shapes: Sequence[Shape]
    ) -> dict[str, np.ndarray]:
        """As `flat`, with several texts in each row."""
        assert self._host is not None
        batch, length = inputs[WORD_IDS].shape
        packs = pack(lengths, [width for _, width in shapes])
        results = pool.run([feed(self._host, inputs, one) for one in packs])
        self._count(inputs[MASK], sum(one.width for one in packs))
        if self._check_finite:
            check_finite(results, [((1, one.width), 1) for one in packs])
        outputs = {
            spec.name: apart(packs, [result[spec.name] for result in results], batch, length)
            if packs
            else np.zeros((0, length, *spec.shape[2:]), np.float32)
            for spec in self._given
        }
        if self._pools:
            outputs[POOLED] = self._host.pooled(outputs[SEQUENCE][:, 0])
        return outputs

    @property
    def _pools(self) -> bool:
        return self.packed and self.manifest.head == "encoder"

    def _count(self, mask: np.ndarray, computed: int) -> None:
        with self._counted.lock:
            self._counted.requests += 1
            self._counted.texts += len(mask)
            self._counted.tokens += int(np.count_nonzero(mask))
            self._counted.computed_tokens += computed

    def _compute(self, inputs: dict[str, np.ndarray]) -> Outputs:
        return self._arranged(self.flat(inputs), inputs.get(MLM_POSITIONS))

    def _revived(self) -> Pool:
        """The pool, made again after its making or all of its contexts failed."""
        with self._revive:
            if not self._finalizer.alive:
                raise BackendError("the model is closed", "load the artifact again")
            pool = self._held.pool
            if pool is None or pool.gone:
                pool = self._held.pool = self._make_pool()
            return pool

    def _padded(self, inputs: Arrays, placement: Placement) -> dict[str, np.ndarray]:
        rows, shape = placement.rows, placement.shape
        padded = {
            name: fit(inputs[name], rows, shape) for name in (WORD_IDS, MASK, TYPE_IDS) if name in inputs
        }
        if self._host is not None:
            padded.update(self._host(padded))
        if self._positions is not None:
            given = inputs.get(MLM_POSITIONS)
            size = (shape[0], self._positions)
            if given is None or given.shape[1] > self._positions:
                raise ValueError(
                    f"the artifact computes {self._positions} masked_lm_positions for each text, give [B, P] "
                    "with P up to that"
                )
            padded[MLM_POSITIONS] = fit(given, rows, size)
        if TYPE_IDS in padded and TYPE_IDS not in self._names and self._host is None:
            check_types(padded[TYPE_IDS], self.config)
        for name, dtype in self._other_integers.items():
            padded[name] = as_integers(name, padded[name], dtype)
        return {name: padded[name] for name in self._names}

    def _shortened(
        self, inputs: dict[str, np.ndarray], lengths: np.ndarray
    ) -> tuple[dict[str, np.ndarray], np.ndarray]:
        longest = self._longest
        if not self._truncate:
            raise ValueError(
                f"a text has {int(lengths.max())} tokens and the longest compiled shape takes {longest}; "
                "export a longer shape, tokenize with a smaller seq_length, or load with truncate=True"
            )
        if MLM_POSITIONS in inputs:
            raise ValueError(
                f"texts with masked_lm_positions cannot be cut off at {longest} tokens; shorten them"
            )
        rows = np.flatnonzero(lengths > longest)
        shortened = {name: value.copy() for name, value in inputs.items()}
        for value in shortened.values():
            # The last token is [SEP], without which BERT has never seen a text end.
            value[rows, longest - 1] = value[rows, lengths[rows] - 1]
            value[rows, longest:] = 0
        return shortened, np.minimum(lengths, longest)

    def _arranged(self, outputs: dict[str, np.ndarray], positions: np.ndarray | None) -> Outputs:
        hidden = [name for name in outputs if name.startswith(_HIDDEN_STATE)]
        arranged: Outputs = {name: value for name, value in outputs.items() if name not in hidden}
        if hidden:
            hidden.sort(key=lambda name: int(name.removeprefix(_HIDDEN_STATE)))
            arranged["encoder_outputs"] = [outputs[name] for name in hidden]
        if "pooled_output" in arranged and self.manifest.head == "encoder":
            arranged["default"] = arranged["pooled_output"]
        if positions is not None and "mlm_logits" in arranged:
            logits = arranged["mlm_logits"]
            if self._positions is None:  # scores at every position: take the ones asked for
                arranged["mlm_logits"] = logits[np.arange(len(logits))[:, None], positions]
            else:
                arranged["mlm_logits"] = logits[:, : positions.shape[1]]
        return arranged
