"""The `simulator` backend: rknn-toolkit2's x86 simulator, in the toolchain's own environment.

An exported .rknn file cannot be simulated, so the model is compiled again from the artefact's ONNX, once, and
then serves. It computes what the NPU computes, float16 and all, and is slow: a second or so for each call.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import threading
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from tfbert_npu.artifact.manifest import Manifest, ModelFile
from tfbert_npu.platforms import platform_named
from tfbert_npu.runtime.backend import Arrays, BackendName, Shape, named, ordered
from tfbert_npu.runtime.errors import BackendError
from tfbert_npu.runtime.files import VerifiedFile


class SimulatorBackend:
    """The artefact compiled again and simulated, one vendor process for each of its .rknn files.

    Args:
        onnx: The artefact's ONNX file, checked.
        manifest: How it was compiled.
        toolchain: Python interpreter or virtual environment with rknn-toolkit2; by default see
            `find_toolchain`.

    Raises:
        BackendError: The artefact is quantised, which needs its calibration data again, or the toolchain
            failed.
        ToolchainError: There is no toolchain.
    """

    name: BackendName = "simulator"

    def __init__(
        self, onnx: VerifiedFile, manifest: Manifest, toolchain: str | os.PathLike[str] | None = None
    ) -> None:
        # The one place where the runtime leans on the exporter, and only when the simulator is asked for.
        from tfbert_npu.export.worker import VendorSession

        if manifest.precision != "fp16":
            raise BackendError(
                f"the simulator cannot compile a {manifest.precision} artefact again, it lacks the "
                "calibration data; export in fp16 to simulate, or use backend='onnx'"
            )
        self.inputs = onnx.model.inputs
        self.outputs = onnx.model.outputs
        self.shapes = tuple(shape for file in manifest.rknn_files for shape in file.shapes)
        self._lock = threading.Lock()
        self._sessions: dict[Shape, VendorSession] = {}
        self._scratch = Path(tempfile.mkdtemp(prefix="tfbert-npu-simulator-"))
        try:
            # The vendor looks at the name's ending.
            model = self._scratch / "model.onnx"
            shutil.copyfile(onnx.path(), model)
            for number, file in enumerate(manifest.rknn_files):
                self._compile(model, file, manifest, self._scratch / f"simulator_{number}.log", toolchain)
        except BaseException:
            self.close()
            raise

    def run(self, inputs: Arrays) -> dict[str, np.ndarray]:
        """Simulate one batch; see `Backend.run`."""
        from tfbert_npu.export.worker import WorkerError

        batch, length = next(iter(inputs.values())).shape[:2]
        shape = (batch, length)
        with self._lock:
            session = self._sessions.get(shape)
            if session is None:
                if not self._sessions:
                    raise BackendError("the simulator is closed; load the artefact again")
                raise BackendError(f"{batch}x{length} is none of the compiled shapes {self.shapes}")
            try:
                values: Sequence[np.ndarray] = session.infer(ordered(self.inputs, inputs, shape))
            except WorkerError as error:
                raise BackendError(f"the simulator failed: {error}; load the artefact again") from error
        arrays = [np.ascontiguousarray(value, np.float32) for value in values]
        return named(self.outputs, arrays, shape, "the simulator")

    def close(self) -> None:
        """End the vendor's processes."""
        with self._lock:
            for session in {id(session): session for session in self._sessions.values()}.values():
                session.close()
            self._sessions = {}
            shutil.rmtree(self._scratch, ignore_errors=True)

    def _compile(
        self,
        model: Path,
        file: ModelFile,
        manifest: Manifest,
        log: Path,
        toolchain: str | os.PathLike[str] | None,
    ) -> None:
        from tfbert_npu.export.compiler import Signature, compile_file
        from tfbert_npu.export.options import RknnOptions
        from tfbert_npu.export.toolchain.environment import find_toolchain
        from tfbert_npu.export.worker import VendorSession, WorkerError

        build = manifest.build
        options = RknnOptions(
            platform=platform_named(build["target_platform"]),
            shapes=file.shapes,
            layout=manifest.layout,
            embeddings=manifest.embeddings,
            optimization_level=build["optimization_level"],
            single_core=build["single_core"],
            compiler=dict(build["compiler_options"]),
        )
        session = VendorSession(find_toolchain(toolchain), log)
        self._sessions.update(dict.fromkeys(file.shapes, session))
        try:
            compile_file(session, model, Signature(file.inputs, file.outputs), options, file.shapes, "")
        except WorkerError as error:
            # The log is the evidence of the failure, and the scratch directory does not outlive it.
            kept = Path(tempfile.gettempdir()) / f"tfbert-npu-simulator-{os.getpid()}.log"
            shutil.copyfile(log, kept)
            raise BackendError(f"the simulator could not compile the model, see {kept}: {error}") from error
