"""The process that holds rknn-toolkit2. Runs in the toolchain's environment: standard library and numpy only.

    python -I vendor_process.py REPLY_FD STANDINS

Requests are JSON objects, one per line, on standard input; each is answered by one JSON line on REPLY_FD.
Standard output and error are the vendor's: its log. Arrays travel as .npz files. The process ends when
its input does, and dies with its parent.

The vendor reports errors in four ways, and all become {"ok": false, "error": ..., "kind": ...}: an exception,
a return code other than 0, None instead of a result, and SystemExit. A crash by signal is the parent's
to see.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import sys
import time
from typing import Any

import numpy as np

_PR_SET_PDEATHSIG = 1


class VendorError(Exception):
    """The vendor said no without an exception."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


class Worker:
    """Answers requests; holds the one model that was built."""

    def __init__(self, rknn_class: Any) -> None:
        self._class = rknn_class
        self._rknn: Any = None
        self._simulating = False

    def build(
        self, onnx: str, config: dict[str, Any], load: dict[str, Any], build: dict[str, Any]
    ) -> dict[str, Any]:
        """Load an ONNX file and compile it."""
        self._load(onnx, config, load)
        self._check("build", self._rknn.build(**build))
        return {}

    def hybrid_step1(
        self, onnx: str, config: dict[str, Any], load: dict[str, Any], arguments: dict[str, Any]
    ) -> dict[str, Any]:
        """First step of hybrid quantization: leaves a configuration for the caller to edit."""
        self._load(onnx, config, load)
        before = set(os.listdir("."))
        self._check("hybrid_quantization_step1", self._rknn.hybrid_quantization_step1(**arguments))
        return {"files": sorted(set(os.listdir(".")) - before)}

    def hybrid_step2(self, model: str, data: str, config: str) -> dict[str, Any]:
        """Second step of hybrid quantization, in a fresh RKNN object as the vendor demands."""
        self._release()
        self._rknn = self._class(verbose=True)
        self._check(
            "hybrid_quantization_step2",
            self._rknn.hybrid_quantization_step2(
                model_input=model, data_input=data, model_quantization_cfg=config
            ),
        )
        return {}

    def export(self, path: str) -> dict[str, Any]:
        """Write the .rknn file."""
        self._check("export_rknn", self._rknn.export_rknn(path))
        if not os.path.isfile(path):
            raise VendorError("return code", "export_rknn wrote no file")
        return {"size": os.path.getsize(path)}

    def infer(self, inputs: str, outputs: str) -> dict[str, Any]:
        """Run the simulator once: arrays in the model's input order -> arrays in its output order."""
        if not self._simulating:
            self._check("init_runtime", self._rknn.init_runtime())
            self._simulating = True
        with np.load(inputs, allow_pickle=False) as file:
            arrays = [file[str(index)] for index in range(len(file.files))]
        values = self._rknn.inference(inputs=arrays)
        if values is None:
            raise VendorError("none", "the simulator returned no result")
        named = {str(index): np.asarray(value) for index, value in enumerate(values)}
        np.savez(outputs, **named)  # type: ignore[arg-type]
        return {"shapes": [list(np.shape(value)) for value in values]}

    def analyze(self, inputs: str, directory: str) -> dict[str, Any]:
        """Per-operator cosine of the compiled model against the float32 graph, as text files."""
        with np.load(inputs, allow_pickle=False) as file:
            paths = []
            for index in range(len(file.files)):
                path = os.path.abspath(f"analysis_{index}.npy")
                np.save(path, file[str(index)])
                paths.append(path)
        self._check("accuracy_analysis", self._rknn.accuracy_analysis(inputs=paths, output_dir=directory))
        return {}

    def _load(self, onnx: str, config: dict[str, Any], load: dict[str, Any]) -> None:
        self._release()
        self._rknn = self._class(verbose=True)
        self._check("config", self._rknn.config(**config), allow_none=True)
        self._check("load_onnx", self._rknn.load_onnx(onnx, **load))

    def _release(self) -> None:
        if self._rknn is not None:
            self._rknn.release()
            self._rknn = None
        self._simulating = False

    @staticmethod
    def _check(step: str, code: int | None, allow_none: bool = False) -> None:
        if code is None and allow_none:
            return
        if code is None:
            raise VendorError("none", step + " returned nothing")
        if code != 0:
            raise VendorError("return code", f"{step} returned {code}")


def peak_rss() -> int:
    """Largest resident memory so far, in bytes. getrusage would count the parent's before exec as well."""
    with open("/proc/self/status") as status:
        for line in status:
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    return 0


def main() -> None:
    """Answer requests until there are no more."""
    reply_fd, standins = int(sys.argv[1]), sys.argv[2]
    # An orphan would go on compiling for minutes and hold gigabytes.
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's; it ends this process
    sys.path.append(standins)
    with os.fdopen(reply_fd, "w", encoding="utf-8") as replies:

        def reply(message: dict[str, Any]) -> None:
            replies.write(json.dumps(message) + "\n")
            replies.flush()

        try:
            from rknn.api import RKNN
        except Exception as error:
            reply({"ok": False, "kind": "exception", "error": f"importing rknn failed: {error}"})
            raise
        worker = Worker(RKNN)
        reply({"ok": True})
        for line in sys.stdin:
            request = json.loads(line)
            started = time.monotonic()
            try:
                answer = getattr(worker, request.pop("action"))(**request)
                message = dict(answer, ok=True)
            except VendorError as error:
                message = {"ok": False, "kind": error.kind, "error": str(error)}
            except SystemExit as error:
                message = {"ok": False, "kind": "exit", "error": f"the vendor called exit({error.code})"}
            except Exception as error:  # noqa: BLE001 - whatever the vendor raises must reach the parent
                name = type(error).__name__
                lines = str(error).strip().splitlines() or [""]
                message = {
                    "ok": False,
                    "kind": "exception",
                    "error": lines[-1] if lines[-1].startswith(name) else f"{name}: {lines[-1]}",
                }
                print(error, flush=True)  # noqa: T201 - into the log
            message["seconds"] = time.monotonic() - started
            message["peak_rss"] = peak_rss()
            sys.stdout.flush()
            libc.fflush(None)  # the compiler's table goes through C's own buffer
            reply(message)


if __name__ == "__main__":
    main()
