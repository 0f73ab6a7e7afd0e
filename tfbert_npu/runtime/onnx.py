"""The `onnx` backend: onnxruntime on the CPU."""

from __future__ import annotations

import os
import threading

import numpy as np

from tfbert_npu.errors import ArtifactError, require
from tfbert_npu.runtime.backend import Arrays, BackendName, named, ordered
from tfbert_npu.runtime.contexts import shape_of
from tfbert_npu.runtime.errors import BackendError
from tfbert_npu.runtime.files import VerifiedFile


class OnnxBackend:
    """The artifact's ONNX file in float32, at any batch and length.

    Args:
        file: The ONNX file, checked.
        threads: Threads of the CPU; by default all that this process may use.

    Raises:
        MissingExtraError: onnxruntime is not installed.
        ArtifactError: onnxruntime refuses the file.
    """

    name: BackendName = "onnx"

    def __init__(self, file: VerifiedFile, threads: int | None = None) -> None:
        onnxruntime = require("onnxruntime", "onnx")
        self.inputs = file.model.inputs
        self.outputs = file.model.outputs
        self.shapes = file.model.shapes
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads or _processors()
        # Spinning threads would take the cores from whoever works beside us.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self._errors = tuple(
            error
            for error in vars(onnxruntime.capi.onnxruntime_pybind11_state).values()
            if isinstance(error, type) and issubclass(error, Exception)
        )
        try:
            self._session = onnxruntime.InferenceSession(
                file.path(), options, providers=["CPUExecutionProvider"]
            )
        except self._errors as error:
            raise ArtifactError(f"onnxruntime cannot read {file.name}: {error}", "export it again") from error
        self._names = [spec.name for spec in self.outputs]
        self._lock = threading.Lock()
        self._closed = False

    def run(self, inputs: Arrays) -> dict[str, np.ndarray]:
        """Compute one batch; see `Backend.run`."""
        shape = shape_of(inputs)
        arrays = ordered(self.inputs, inputs, shape)
        feed = {spec.name: array for spec, array in zip(self.inputs, arrays, strict=True)}
        with self._lock:
            if self._closed:
                raise BackendError("the ONNX session is closed", "load the artifact again")
            try:
                values = self._session.run(self._names, feed)
            except self._errors as error:
                raise BackendError(f"onnxruntime failed: {error}", "export the model again") from error
        return named(self.outputs, values, shape, "onnxruntime")

    def close(self) -> None:
        """Free the session."""
        with self._lock:
            if not self._closed:
                self._closed = True
                del self._session


def _processors() -> int:
    """Processors that this process may use; not every system can say."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
