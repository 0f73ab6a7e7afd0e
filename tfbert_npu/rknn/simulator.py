"""The `simulator` backend: rknn-toolkit2's x86 simulator, in the toolchain's own environment.

An exported .rknn file cannot be simulated, so the model is compiled again from the artifact's ONNX, once, and
then serves. It computes what the NPU computes, float16 and int8 and all, and is slow: a second or so for each
call.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import threading
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from tfbert_npu._files import scratch_directory
from tfbert_npu.artifact.manifest import Manifest, ModelFile
from tfbert_npu.onnx.signature import Signature
from tfbert_npu.platforms import platform_named
from tfbert_npu.rknn.compiler import Compiler
from tfbert_npu.rknn.hybrid import Document, document_name
from tfbert_npu.rknn.options import RknnOptions
from tfbert_npu.rknn.toolchain.environment import find_toolchain
from tfbert_npu.rknn.worker import VendorSession, WorkerError
from tfbert_npu.runtime.backend import Arrays, BackendName, named, ordered
from tfbert_npu.runtime.contexts import Contexts, shape_of
from tfbert_npu.runtime.errors import BackendError
from tfbert_npu.runtime.files import Artifact, VerifiedFile
from tfbert_npu.runtime.providers import provides


@provides("simulator")
class SimulatorBackend:
    """The artifact compiled again and simulated, one vendor process for each of its .rknn files.

    Args:
        artifact: The artifact, for how it was compiled.
        onnx: Its ONNX file, checked.
        toolchain: Python interpreter or virtual environment with rknn-toolkit2; by default see
            `find_toolchain`.

    Raises:
        ArtifactError: A file is damaged.
        BackendError: The artifact lacks what it was compiled from, or the toolchain failed.
        ToolchainError: There is no toolchain.
    """

    name: BackendName = "simulator"

    def __init__(
        self, artifact: Artifact, onnx: VerifiedFile, toolchain: str | os.PathLike[str] | None = None
    ) -> None:
        files = artifact.manifest.rknn_files
        self.inputs = onnx.model.inputs
        self.outputs = onnx.model.outputs
        self.shapes = tuple(shape for file in files for shape in file.shapes)
        self._lock = threading.Lock()
        self._sessions: Contexts[VendorSession] = Contexts("simulator")
        self._temporary = scratch_directory()
        self._scratch = Path(self._temporary.name)
        try:
            # The vendor looks at the name's ending.
            model = self._scratch / "model.onnx"
            shutil.copyfile(onnx.path(), model)
            for number, file in enumerate(files):
                document = None
                if artifact.manifest.precision == "w8a8":
                    document = quantization_of(artifact, file)
                log = self._scratch / f"simulator_{number}.log"
                session = VendorSession(find_toolchain(toolchain), log)
                self._sessions.add(file.shapes, session)
                _compile(session, model, file, artifact, document)
        except BaseException:
            self.close()
            raise

    def run(self, inputs: Arrays) -> dict[str, np.ndarray]:
        """Simulate one batch; see `Backend.run`."""
        shape = shape_of(inputs)
        with self._lock:
            session = self._sessions.of(shape)
            try:
                values: Sequence[np.ndarray] = session.infer(ordered(self.inputs, inputs, shape))
            except WorkerError as error:
                raise BackendError(f"the simulator failed: {error}", "load the artifact again") from error
        arrays = [np.ascontiguousarray(value, np.float32) for value in values]
        return named(self.outputs, arrays, shape, "the simulator")

    def close(self) -> None:
        """End the vendor's processes."""
        with self._lock:
            for session in self._sessions.take():
                session.close()
            self._temporary.cleanup()


def quantization_of(artifact: Artifact, file: ModelFile) -> Document:
    """How one of an artifact's int8 files was quantized: `HybridModel.document`.

    Raises:
        ArtifactError: The file that says so is damaged.
        BackendError: There is none.
    """
    name = document_name(file.path)
    if name not in {support.path for support in artifact.manifest.support}:
        raise BackendError(
            f"the simulator cannot compile {file.path} again: {artifact.directory} holds no {name}",
            "export it again with this version, or use backend='onnx'",
        )
    artifact.manifest.check_files(artifact.directory, [name])
    document: Document = json.loads((artifact.directory / name).read_text(encoding="utf-8"))
    return document


def _compile(
    session: VendorSession,
    model: Path,
    file: ModelFile,
    artifact: Artifact,
    document: Document | None,
) -> None:
    signature = Signature(file.inputs, file.outputs)
    compiler = Compiler(model, signature, _options(artifact.manifest, file), artifact.config)
    try:
        if document is None:
            compiler.compile(session, file.shapes)
            return
        # Calibration would find the ranges that the document holds already; its first step wants a sample.
        sample = {spec.name: np.ones(spec.at(file.shapes[0]), spec.dtype) for spec in file.inputs}
        compiler.hybrid(session, file.shapes, [sample]).build_from(document)
    except ValueError as error:
        raise BackendError(f"the simulator cannot compile {file.path} again: {error}") from error
    except WorkerError as error:
        # The log is the evidence of the failure, and the scratch directory does not outlive it.
        handle, kept = tempfile.mkstemp(prefix="tfbert-npu-simulator-", suffix=".log")
        with os.fdopen(handle, "wb") as log:  # no name that somebody else could have taken
            log.write(Path(session.log).read_bytes())
        raise BackendError(f"the simulator could not compile the model, see {kept}: {error}") from error


def _options(manifest: Manifest, file: ModelFile) -> RknnOptions:
    build = manifest.build
    return RknnOptions(
        platform=platform_named(build["target_platform"]),
        shapes=file.shapes,
        precision=manifest.precision,  # type: ignore[arg-type]
        layout=manifest.layout,
        embeddings=manifest.embeddings,
        optimization_level=build["optimization_level"],
        single_core=build["single_core"],
        compiler=dict(build["compiler_options"]),
    )
