"""A conversation with one vendor process: requests, limits, its log, and one clear error for every death."""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from tfbert_npu._files import scratch_directory
from tfbert_npu.rknn.toolchain.environment import Toolchain
from tfbert_npu.rknn.worker.limits import Limits, WorkerError, last_error, resident_memory

_POLL_SECONDS = 0.2


@dataclass(frozen=True)
class HybridFiles:
    """What the first step of hybrid quantization leaves for the second."""

    model: Path
    data: Path
    config: Path
    """YAML: which operators stay in float16, and the quantization parameters of each tensor."""


class VendorSession:
    """One process with rknn-toolkit2, which compiles one model and simulates it.

    A context manager: leaving it ends the process and removes its scratch directory. Sessions are
    independent of each other and may run side by side; one session is for one thread.

    Args:
        toolchain: Whose Python runs it.
        log: File that takes everything the vendor prints. It is kept, for it is the evidence of a failure.
        limits: Time for each request, and memory.
        scratch: Directory in which the scratch directory is made; by default the system's.
        standins: Directory of modules for what the toolchain lacks; by default those of `export.toolchain`.

    Raises:
        WorkerError: From every method, if the vendor fails, the process dies, or a limit is passed.
    """

    def __init__(
        self,
        toolchain: Toolchain,
        log: str | os.PathLike[str],
        limits: Limits | None = None,
        scratch: str | os.PathLike[str] | None = None,
        standins: str | os.PathLike[str] | None = None,
    ) -> None:
        self._limits = limits or Limits()
        self.log = Path(log)
        self.peak_memory = 0
        self._temporary = scratch_directory(scratch)
        self._scratch = Path(self._temporary.name)
        self._number = 0
        self._buffer = b""
        read_fd, write_fd = os.pipe()
        self._replies = os.fdopen(read_fd, "rb", buffering=0)
        here = Path(str(files("tfbert_npu.rknn")))
        standins = standins or here / "toolchain" / "standins"
        try:
            with open(self.log, "ab") as log_stream:
                self._process = subprocess.Popen(
                    [
                        os.fspath(toolchain.python),
                        "-I",
                        os.fspath(here / "worker" / "vendor_process.py"),
                        str(write_fd),
                        os.fspath(standins),
                    ],
                    stdin=subprocess.PIPE,
                    stdout=log_stream,
                    stderr=subprocess.STDOUT,
                    pass_fds=(write_fd,),
                    cwd=self._scratch,
                    env={**os.environ, "TMPDIR": os.fspath(self._scratch), "PYTHONUNBUFFERED": "1"},
                    start_new_session=True,
                )
        except BaseException:
            self._replies.close()
            self._temporary.cleanup()
            raise
        finally:
            os.close(write_fd)
        self._greeted = False

    def build(
        self,
        onnx: str | os.PathLike[str],
        config: Mapping[str, Any],
        *,
        load: Mapping[str, Any] | None = None,
        build: Mapping[str, Any] | None = None,
    ) -> str:
        """Compile an ONNX file.

        Args:
            onnx: The file.
            config: Arguments of `RKNN.config`.
            load: Further arguments of `RKNN.load_onnx`, such as `inputs` and `input_size_list`.
            build: Arguments of `RKNN.build`; by default no quantization.

        Returns:
            What the vendor printed meanwhile.
        """
        start = self.log.stat().st_size
        self._request(
            "build",
            onnx=os.path.abspath(onnx),
            config=dict(config),
            load=dict(load or {}),
            build=dict(build or {"do_quantization": False}),
        )
        return self._printed_since(start)

    def hybrid_step1(
        self,
        onnx: str | os.PathLike[str],
        config: Mapping[str, Any],
        samples: Sequence[Sequence[np.ndarray]],
        *,
        load: Mapping[str, Any] | None = None,
        **arguments: Any,
    ) -> HybridFiles:
        """First step of hybrid quantization.

        Args:
            onnx: The file.
            config: Arguments of `RKNN.config`.
            samples: Calibration samples, each the arrays of one call in the model's input order.
            load: Further arguments of `RKNN.load_onnx`.
            **arguments: Further arguments of `RKNN.hybrid_quantization_step1`.

        Returns:
            The files that the step left; edit `config` before `hybrid_step2`. They vanish with the session.
        """
        reply = self._request(
            "hybrid_step1",
            onnx=os.path.abspath(onnx),
            config=dict(config),
            load=dict(load or {}),
            arguments={"dataset": os.fspath(self.write_dataset(samples)), **arguments},
        )
        found = {Path(name).suffix: self._scratch / name for name in reply["files"]}
        return HybridFiles(model=found[".model"], data=found[".data"], config=found[".cfg"])

    def hybrid_step2(self, files: HybridFiles) -> str:
        """Second step of hybrid quantization; the built model can be exported and simulated.

        Returns:
            What the vendor printed meanwhile.
        """
        start = self.log.stat().st_size
        self._request(
            "hybrid_step2",
            model=os.fspath(files.model),
            data=os.fspath(files.data),
            config=os.fspath(files.config),
        )
        return self._printed_since(start)

    def write_dataset(self, samples: Sequence[Sequence[np.ndarray]]) -> Path:
        """Write calibration samples as the list of .npy files that `RKNN.build` takes as `dataset`.

        Args:
            samples: Each the arrays of one call, in the model's input order.
        """
        directory = self._scratch / f"dataset_{self._number}"
        self._number += 1
        directory.mkdir()
        lines = []
        for row, sample in enumerate(samples):
            names = [os.fspath(directory / f"{row}_{column}.npy") for column in range(len(sample))]
            for name, array in zip(names, sample, strict=True):
                np.save(name, array)
            lines.append(" ".join(names))
        path = directory / "dataset.txt"
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
        return path

    def export(self, path: str | os.PathLike[str]) -> None:
        """Write the compiled model to a .rknn file."""
        self._request("export", path=os.path.abspath(path))

    def infer(self, inputs: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Run the simulator: arrays in the model's order and dtype -> float32 arrays in its order."""
        source, target = self._scratch / "inputs.npz", self._scratch / "outputs.npz"
        _save(source, inputs)
        self._request("infer", inputs=os.fspath(source), outputs=os.fspath(target))
        with np.load(target, allow_pickle=False) as file:
            return [file[str(index)] for index in range(len(file.files))]

    def analyze(self, inputs: Sequence[np.ndarray], directory: str | os.PathLike[str]) -> Path:
        """Compare every operator with the float32 graph (the vendor's accuracy_analysis).

        Returns:
            The vendor's table of cosines and distances, a text file in `directory`.
        """
        source = self._scratch / "inputs.npz"
        _save(source, inputs)
        self._request("analyze", inputs=os.fspath(source), directory=os.path.abspath(directory))
        return Path(directory) / "error_analysis.txt"

    def close(self) -> None:
        """End the process and remove its scratch directory; a second call does nothing."""
        self._kill()
        self._replies.close()
        self._temporary.cleanup()

    def __enter__(self) -> VendorSession:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _request(self, action: str, **arguments: Any) -> dict[str, Any]:
        if not self._greeted:
            self._checked("import", self._receive("import"))
            self._greeted = True
        line = json.dumps({"action": action, **arguments}) + "\n"
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(line.encode())
            self._process.stdin.flush()
        except BrokenPipeError:
            raise self._death(action) from None
        except ValueError:  # written to after close()
            raise WorkerError("the session is closed; open a new one", self.log, "closed") from None
        return self._checked(action, self._receive(action))

    def _receive(self, action: str) -> dict[str, Any]:
        deadline = time.monotonic() + self._limits.seconds
        with selectors.DefaultSelector() as selector:
            selector.register(self._replies, selectors.EVENT_READ)
            while b"\n" not in self._buffer:
                memory = resident_memory(self._process.pid)
                self.peak_memory = max(self.peak_memory, memory)
                if memory > self._limits.memory:
                    self._kill()
                    raise WorkerError(
                        f"rknn-toolkit2 used {memory / 2**30:.1f} GiB in {action}, more than the limit of "
                        f"{self._limits.memory / 2**30:.1f}; raise the memory limit, see {self.log}",
                        self.log,
                        "memory",
                    )
                if time.monotonic() > deadline:
                    self._kill()
                    raise WorkerError(
                        f"rknn-toolkit2 took longer than {self._limits.seconds:g} s in {action} and was "
                        f"ended; raise the time limit, see {self.log}",
                        self.log,
                        "timeout",
                    )
                if selector.select(_POLL_SECONDS):
                    part = os.read(self._replies.fileno(), 65536)
                    if not part:
                        raise self._death(action)
                    self._buffer += part
        line, _, self._buffer = self._buffer.partition(b"\n")
        reply: dict[str, Any] = json.loads(line)
        return reply

    def _checked(self, action: str, reply: dict[str, Any]) -> dict[str, Any]:
        self.peak_memory = max(self.peak_memory, reply.get("peak_rss", 0))
        if reply["ok"]:
            return reply
        detail = "" if reply["kind"] == "exception" else last_error(self.log)
        raise WorkerError(
            f"rknn-toolkit2 failed in {action}: {reply['error']}{detail}; see {self.log}",
            self.log,
            reply["kind"],
        )

    def _death(self, action: str) -> WorkerError:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout=5)
        self._kill()
        code = self._process.returncode
        if code is not None and code < 0:
            how = f"was killed by {signal.Signals(-code).name}"
            if -code == signal.SIGKILL:
                how += " (often: the machine ran out of memory)"
        else:
            how = f"ended with code {code}"
        return WorkerError(
            f"rknn-toolkit2 {how} in {action}{last_error(self.log)}; see {self.log}", self.log, "death"
        )

    def _printed_since(self, start: int) -> str:
        with open(self.log, "rb") as stream:
            stream.seek(start)
            return stream.read().decode("utf-8", errors="replace")

    def _kill(self) -> None:
        if self._process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
        if self._process.stdin is not None:
            with contextlib.suppress(BrokenPipeError):
                self._process.stdin.close()


def _save(path: Path, arrays: Sequence[np.ndarray]) -> None:
    with open(path, "wb") as stream:
        named = {str(index): array for index, array in enumerate(arrays)}
        np.savez(stream, **named)  # type: ignore[arg-type]
