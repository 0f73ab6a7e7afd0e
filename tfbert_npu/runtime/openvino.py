"""The `openvino` backend: the artifact's ONNX file by Intel's OpenVINO, on the CPU."""

from __future__ import annotations

import threading

import numpy as np

from tfbert_npu.errors import ArtifactError, require
from tfbert_npu.runtime.backend import Arrays, BackendName, named, ordered
from tfbert_npu.runtime.contexts import shape_of
from tfbert_npu.runtime.errors import BackendError
from tfbert_npu.runtime.files import VerifiedFile


class OpenvinoBackend:
    """The artifact's ONNX file in float32, at any batch and length; compiled once for all of them.

    Args:
        file: The ONNX file, checked.
        threads: Threads of the CPU; by default OpenVINO's choice, one for each core.

    Raises:
        MissingExtraError: OpenVINO is not installed.
        ArtifactError: OpenVINO refuses the file.
    """

    name: BackendName = "openvino"

    def __init__(self, file: VerifiedFile, threads: int | None = None) -> None:
        core = require("openvino", "openvino").Core()
        self.inputs = file.model.inputs
        self.outputs = file.model.outputs
        self.shapes = file.model.shapes
        # By default it computes in bfloat16 where the CPU can, and the outputs are then another model's.
        options = {"INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY"}
        if threads is not None:
            options["INFERENCE_NUM_THREADS"] = str(threads)
        try:
            compiled = core.compile_model(core.read_model(file.path()), "CPU", options)
            self._request = compiled.create_infer_request()
        except RuntimeError as error:
            raise ArtifactError(f"OpenVINO cannot read {file.name}: {error}", "export it again") from error
        self._lock = threading.Lock()
        self._closed = False

    def run(self, inputs: Arrays) -> dict[str, np.ndarray]:
        """Compute one batch; see `Backend.run`."""
        shape = shape_of(inputs)
        arrays = ordered(self.inputs, inputs, shape)
        feed = {spec.name: array for spec, array in zip(self.inputs, arrays, strict=True)}
        with self._lock:
            if self._closed:
                raise BackendError("the OpenVINO model is closed", "load the artifact again")
            try:
                # The inputs are read where they lie. The outputs are copies: the next call overwrites them.
                given = self._request.infer(feed, share_inputs=True)
                values = [given[spec.name] for spec in self.outputs]
            except RuntimeError as error:
                raise BackendError(f"OpenVINO failed: {error}", "export the model again") from error
        return named(self.outputs, values, shape, "OpenVINO")

    def close(self) -> None:
        """Free the compiled model."""
        with self._lock:
            if not self._closed:
                self._closed = True
                del self._request
