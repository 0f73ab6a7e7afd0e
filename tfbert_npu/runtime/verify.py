"""Does this machine compute what was exported? The artifact's reference inputs, at every shape."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass

import numpy as np

from tfbert_npu.artifact.agreement import Agreement, compare
from tfbert_npu.artifact.reference import Reference
from tfbert_npu.errors import ArtifactError
from tfbert_npu.heads import OutputSpec
from tfbert_npu.inputs import MASK, TYPE_IDS, WORD_IDS
from tfbert_npu.runtime.backend import Shape
from tfbert_npu.runtime.errors import BackendError
from tfbert_npu.runtime.files import Artifact
from tfbert_npu.runtime.load import Options, open_model
from tfbert_npu.runtime.model import NpuModel
from tfbert_npu.runtime.router import real_lengths

_CPU_COSINE = 0.99999
# The same file on the same arithmetic; a board may add in another order than the simulator did.
_SLACK = 1.5
_LEAK = 1e-4


@dataclass(frozen=True)
class Verdict:
    """One output at one shape."""

    shape: Shape
    output: str
    texts: int
    cosine: float
    max_abs: float
    relative: float
    """Length of the difference over the length of the reference, of the worst text."""
    not_finite: int
    least_cosine: float
    most_relative: float

    @property
    def passed(self) -> bool:
        """Whether every text is within the limits."""
        return (
            not self.not_finite and self.cosine >= self.least_cosine and self.relative <= self.most_relative
        )


@dataclass(frozen=True)
class Verification:
    """What `verify` found."""

    artifact: str
    runs_on: str
    verdicts: tuple[Verdict, ...]
    problems: tuple[str, ...]
    """What failed, in sentences, with what to suspect."""

    @property
    def passed(self) -> bool:
        """Whether all is as it was exported."""
        return not self.problems

    def as_dict(self) -> dict[str, object]:
        """Plain JSON."""
        rows = [{**asdict(verdict), "passed": verdict.passed} for verdict in self.verdicts]
        return {
            "artifact": self.artifact,
            "runs_on": self.runs_on,
            "passed": self.passed,
            "verdicts": rows,
            "problems": list(self.problems),
        }


def verify(artifact: Artifact, options: Options) -> Verification:
    """Run the reference inputs at every shape and compare with the float32 model's outputs.

    A text's difference may be as long as the gate's least cosine lets it be, or half as long again as what
    the export measured. At shapes of several texts they are computed together, so that a text that leaks into
    another shows; and every other text is changed, which must leave the rest as they were.

    Args:
        artifact: What `export_rknn` or `export_onnx` wrote.
        options: How to load it; nothing may stand in for the backend.

    Raises:
        FileNotFoundError: The artifact holds no reference.
        ArtifactError: A file is damaged, or the reference is another artifact's.
        BackendError: The backend cannot be started here.
    """
    if options.on_error != "raise":
        raise ValueError("verify asks one backend; leave out on_error")
    artifact.manifest.check_files(artifact.directory)
    reference = Reference.read(artifact.directory)
    if reference.source_sha256 != artifact.manifest.source_sha256:
        raise ArtifactError(
            f"the reference in {artifact.directory} is of other weights than its manifest",
            "copy or export the directory again",
        )
    with open_model(artifact, options) as model:
        found = _Run(model, reference)
        found.compute()
        return Verification(
            str(artifact.directory), model.runs_on, tuple(found.verdicts), tuple(found.conclusions())
        )


class _Run:
    def __init__(self, model: NpuModel, reference: Reference) -> None:
        self.model, self.reference = model, reference
        self.lengths = real_lengths(reference.inputs[MASK])
        self.names = [spec.name for spec in model.outputs if spec.name in reference.outputs]
        if not self.names:
            raise ArtifactError(
                f"the reference in {model.directory} has none of the model's outputs", "export it again"
            )
        self.verdicts: list[Verdict] = []
        self.failed: dict[Shape, str] = {}
        self.leaks: list[Shape] = []

    def compute(self) -> None:
        """Fill in what each shape gives."""
        longest = int(self.lengths.max())
        for shape in self.model.shapes or dict.fromkeys(((1, longest), (len(self.lengths), longest))):
            try:
                self.verdicts += self._at(shape)
                if (shape[0] > 1 or self.model.packed) and self._leaks(shape):
                    self.leaks.append(shape)
            except BackendError as error:
                self.failed[shape] = str(error)

    def conclusions(self) -> Iterator[str]:
        """What failed, and what to suspect."""
        for shape, error in self.failed.items():
            yield f"{_name(shape)} cannot be computed: {error}"
        for shape in self.leaks:
            yield f"at {_name(shape)} a text changes the texts beside it; export batch 1, not packed"
        wrong = [verdict for verdict in self.verdicts if not verdict.passed]
        for shape in dict.fromkeys(verdict.shape for verdict in wrong):
            here = {verdict.output: verdict for verdict in self.verdicts if verdict.shape == shape}
            bad = [name for name, verdict in here.items() if not verdict.passed]
            words = ", ".join(_described(here[name]) for name in bad)
            yield f"{_name(shape)}: {words}; {_suspect(bad, here)}"
        bad_shapes = {verdict.shape for verdict in wrong} | self.failed.keys()
        good = {verdict.shape for verdict in self.verdicts} - bad_shapes
        if bad_shapes and good and len(self.model.manifest.rknn_files) == 1:
            yield (
                f"{', '.join(map(_name, sorted(good)))} passed from the same file, so its dynamic shapes are "
                "to suspect; export with --layout static"
            )

    def _at(self, shape: Shape) -> list[Verdict]:
        rows = np.flatnonzero(self.lengths <= shape[1])
        if not len(rows):
            raise BackendError("no text of the reference is that short")
        got = self._run(rows, shape)
        mask = self.reference.inputs[MASK][rows]
        verdicts = []
        for name in self.names:
            # The kept values are of real tokens; nothing is left to mask.
            spec = OutputSpec(name, ("B", *[-1] * (self.reference.outputs[name].ndim - 1)))
            expected = {name: self.reference.outputs[name][rows]}
            try:
                kept = {name: self.reference.of(name, got[name], rows)}
                found = compare([kept], [expected], [mask], [spec])[name]
            except (IndexError, ValueError) as error:
                raise BackendError(f"{name} has another shape than the reference's ({error})") from error
            verdicts.append(self._verdict(shape, name, len(rows), found))
        return verdicts

    def _leaks(self, shape: Shape) -> bool:
        """Whether a change of every other text changes those between them."""
        rows = np.flatnonzero(self.lengths <= shape[1])
        rows = rows if self.model.packed else rows[: shape[0]]
        before = self._run(rows, shape)
        for first in (0, 1):
            changed = np.arange(len(rows)) % 2 == first
            after = self._run(rows, shape, changed)
            for name in self.names:
                was, is_now = (
                    self.reference.of(name, side[name], rows)[~changed] for side in (before, after)
                )
                difference = float(np.max(np.abs(was - is_now), initial=0.0))
                if difference > _LEAK * float(np.max(np.abs(was), initial=0.0)):
                    return True
        return False

    def _run(
        self, rows: np.ndarray, shape: Shape, changed: np.ndarray | None = None
    ) -> dict[str, np.ndarray]:
        width = min(int(self.lengths[rows].max()), shape[1])
        inputs = {
            name: value[rows][:, :width] if name in (WORD_IDS, MASK, TYPE_IDS) else value[rows]
            for name, value in self.reference.inputs.items()
        }
        if changed is not None:
            other = changed[:, None] & (inputs[MASK] != 0)
            inputs[WORD_IDS] = np.where(other, np.roll(inputs[WORD_IDS], 1, axis=1), inputs[WORD_IDS])
        return self.model.flat(inputs, shape)

    def _verdict(self, shape: Shape, name: str, texts: int, found: Agreement) -> Verdict:
        manifest = self.model.manifest
        least = float(manifest.gate.get("min_cosine", _CPU_COSINE))
        measured = float(manifest.parity.get(name, {}).get("relative", 0.0))
        if self.model.backend in ("onnx", "openvino") and manifest.precision in ("fp16", "fp32"):
            least, measured = max(least, _CPU_COSINE), 0.0
        # Two vectors of one length and cosine c are this far apart.
        relative = max(math.sqrt(2 * max(1 - least, 0.0)), _SLACK * measured)
        return Verdict(
            shape, name, texts, found.cosine, found.max_abs, found.relative, found.not_finite, least, relative
        )


def _described(verdict: Verdict) -> str:
    if verdict.not_finite:
        return f"{verdict.output} holds {verdict.not_finite} numbers that are NaN or infinite"
    return (
        f"{verdict.output} differs by {verdict.relative:.1%} (at most {verdict.most_relative:.1%}), cosine "
        f"{verdict.cosine:.6f}"
    )


def _suspect(bad: Sequence[str], here: dict[str, Verdict]) -> str:
    good = [name for name in here if name not in bad]
    layers = sorted(int(name.rpartition("_")[2]) for name in bad if name.startswith("encoder_outputs_"))
    if layers and layers[0] > 0:
        return f"layer {layers[0]} is the first that is wrong"
    if bad == ["pooled_output"] and good:
        return "what is before the pooler is right, so its product and its Tanh are to suspect"
    if good:
        return f"{', '.join(good)} is right, so what follows it is to suspect"
    return "everything is wrong, so the weights, the order of the outputs or the runtime are to suspect"


def _name(shape: Shape) -> str:
    return f"{shape[0]}x{shape[1]}"
