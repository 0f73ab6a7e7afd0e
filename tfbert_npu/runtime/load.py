"""`load_npu`: an artifact directory as a function from numpy to numpy."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal, get_args

from tfbert_npu.errors import ArtifactError
from tfbert_npu.platforms import Platform
from tfbert_npu.runtime import rknn, soc
from tfbert_npu.runtime.backend import Arrays, Backend, BackendName, Shape
from tfbert_npu.runtime.errors import BackendError, FailedCallError
from tfbert_npu.runtime.failover import logger
from tfbert_npu.runtime.files import Artifact, VerifiedFile
from tfbert_npu.runtime.memory import check_memory
from tfbert_npu.runtime.model import Fallback, NpuModel, Outputs
from tfbert_npu.runtime.onnx import OnnxBackend
from tfbert_npu.runtime.openvino import OpenvinoBackend
from tfbert_npu.runtime.pool import Pool
from tfbert_npu.runtime.providers import provider_of
from tfbert_npu.runtime.rknn import RknnBackend

BackendChoice = Literal["auto", "rknn", "simulator", "onnx", "openvino"]
OnError = Literal["raise", "onnx"]
_ON_CPU: dict[BackendName, Callable[..., Backend]] = {"onnx": OnnxBackend, "openvino": OpenvinoBackend}
# The simulator compiles the model first; the vendor's process has limits of its own.
_COMPILE_SECONDS = 3600.0
_CHECKS = 3

Cores = Literal["auto"] | int | Sequence[int]


@dataclass(frozen=True)
class Options:
    """How a model is loaded; see `load_npu`."""

    backend: BackendChoice = "auto"
    cores: Cores = "auto"
    truncate: bool = False
    timeout: float | None = 30.0
    lend_timeout: float = 60.0
    on_error: OnError = "raise"
    retry_after: float = 30.0
    check_finite: bool = False
    warm_up: bool = True
    threads: int | None = None
    toolchain: str | os.PathLike[str] | None = None
    file: str | None = None

    def __post_init__(self) -> None:
        for name, value, allowed in (
            ("backend", self.backend, get_args(BackendChoice)),
            ("on_error", self.on_error, get_args(OnError)),
        ):
            if value not in allowed:
                raise ValueError(f"{name} must be one of {allowed}, got {value!r}")
        for name in ("timeout", "lend_timeout", "retry_after"):
            seconds = getattr(self, name)
            if seconds is not None and not seconds > 0:
                raise ValueError(f"{name} must be more than 0 seconds, got {seconds!r}")


def load_npu(
    artifact_dir: str | os.PathLike[str],
    backend: BackendChoice = "auto",
    cores: Cores = "auto",
    *,
    truncate: bool = False,
    timeout: float | None = 30.0,
    lend_timeout: float = 60.0,
    on_error: OnError = "raise",
    retry_after: float = 30.0,
    check_finite: bool = False,
    warm_up: bool = True,
    threads: int | None = None,
    toolchain: str | os.PathLike[str] | None = None,
    file: str | None = None,
) -> NpuModel:
    """Load an artifact directory.

    A directory of rk-transformers (`config.json` and `.rknn` files, no manifest) is taken as well; nothing
    but the file itself vouches for its content then. Its inputs and outputs have TF-Hub's names here.

    Args:
        artifact_dir: What `export_rknn` wrote.
        backend: `"rknn"`: the board's NPU. `"onnx"`, `"openvino"`: the CPU. `"simulator"`: the vendor's
            simulator, slow and exact. `"auto"`: the NPU where there is one, else onnxruntime on the CPU;
            which one is logged and in `runs_on`.
        cores: NPU cores to use, one context on each: `"auto"` for all that the SoC has, a number of them, or
            their numbers, counted from 0. Each core holds a copy of the weights.
        truncate: Cut off texts that are longer than the longest compiled shape, keeping their last token;
            otherwise they are an error.
        timeout: Seconds that a call of the NPU may take. After that its context is given up and replaced, and
            the call made once more. None for no limit.
        lend_timeout: Seconds that a call may wait for a free context.
        on_error: `"raise"`, or `"onnx"`: while the backend fails, the CPU answers. It is logged once, and
            shows in `runs_on` and `stats()`.
        retry_after: Seconds until a backend that failed is tried again.
        check_finite: Look for NaN and infinity in every output and treat them as a failure.
        warm_up: Compute each shape once on every context before returning (NPU only).
        threads: CPU threads of the `onnx` and `openvino` backends; by default all.
        toolchain: Python interpreter or virtual environment for the simulator; by default see
            `find_toolchain`.
        file: The one of the directory's `.rknn` files that is wanted, such as `"rknn/model_o3.rknn"`; by
            default all that the manifest names. Without a manifest, one of several must be named.

    Raises:
        FileNotFoundError: No artifact directory.
        ArtifactError: A file is damaged, missing, or made for another SoC.
        BackendError: The backend cannot be started here.
        ValueError: An option is unknown or impossible.

    Example:
        On a board, or with backend="onnx" anywhere:

        >>> from tfbert_npu import BertTokenizer, load_npu
        >>> tokenizer = BertTokenizer.from_pretrained("out")  # doctest: +SKIP
        >>> with load_npu("out") as npu:  # doctest: +SKIP
        ...     npu(tokenizer(["A text."], seq_length=128))["pooled_output"].shape
        (1, 384)
    """
    options = Options(
        backend=backend,
        cores=cores,
        truncate=truncate,
        timeout=timeout,
        lend_timeout=lend_timeout,
        on_error=on_error,
        retry_after=retry_after,
        check_finite=check_finite,
        warm_up=warm_up,
        threads=threads,
        toolchain=toolchain,
        file=file,
    )
    return open_model(Artifact.open(artifact_dir, file), options)


def open_model(
    artifact: Artifact, options: Options, fallback: tuple[str, Fallback] | None = None
) -> NpuModel:
    """Load an artifact; `fallback` is the name of something else that can compute a request, and that."""
    name = chosen_backend(artifact, options.backend)
    if options.on_error == "onnx" and name != "onnx" and fallback is None:
        fallback = ("onnx", _OnnxFallback(artifact, options))
    entries = artifact.manifest.rknn_files if name == "rknn" else [artifact.manifest.onnx_file]
    files: list[VerifiedFile] = []
    try:
        for entry in entries:
            if entry is None:
                raise ArtifactError(
                    f"{artifact.directory} holds no ONNX file of ours, without which it runs on a board only "
                    "(backend='rknn')",
                    "export the model with export_rknn to run it here",
                )
            files.append(VerifiedFile(artifact.directory, entry))
        if not files:
            raise ArtifactError(f"{artifact.directory} holds no .rknn file", "export it again")
        shapes: Sequence[Shape] = ()
        if name not in _ON_CPU:
            shapes = [shape for file in artifact.manifest.rknn_files for shape in file.shapes]
        make_pool = _pool_maker(artifact, name, files, options)
    except BaseException:
        for file in files:
            file.close()
        raise
    return NpuModel(
        artifact,
        name,
        files,
        make_pool,
        shapes,
        truncate=options.truncate,
        check_finite=options.check_finite,
        fallback=fallback,
        retry_after=options.retry_after,
    )


def chosen_backend(artifact: Artifact, backend: BackendChoice) -> BackendName:
    """What `"auto"` means here."""
    if backend != "auto":
        return backend
    if artifact.manifest.rknn_files and soc.board_platform() is not None:
        return "rknn"
    logger.warning("there is no Rockchip NPU here; %s runs on the CPU (onnx)", artifact.directory)
    return "onnx"


def chosen_cores(platform: Platform, cores: Cores) -> tuple[int, ...]:
    """The cores that are meant, by number.

    Raises:
        ValueError: There are no such cores.
    """
    if cores == "auto":
        return tuple(range(platform.cores))
    if isinstance(cores, str):
        raise ValueError(f"cores must be 'auto', a number of cores or their numbers, got {cores!r}")
    numbers = tuple(range(cores)) if isinstance(cores, int) else tuple(cores)
    if not numbers or len(set(numbers)) < len(numbers) or not set(numbers) <= set(range(platform.cores)):
        raise ValueError(
            f"{platform.name} has {platform.cores} cores, numbered from 0; cores={cores!r} is not among them"
        )
    return numbers


def _pool_maker(
    artifact: Artifact, name: BackendName, files: Sequence[VerifiedFile], options: Options
) -> Callable[[], Pool]:
    if name == "rknn":

        def on_board() -> Pool:
            rknn.vendor_class()
            platform = soc.board_platform()
            if platform is None:
                raise BackendError(
                    "this is no board with a known Rockchip NPU (see `tfbert-npu doctor`)",
                    "use backend='onnx' or 'simulator'",
                )
            for file in files:
                rknn.check_platform(file, platform)
            cores = chosen_cores(platform, options.cores)
            check_memory(artifact.manifest, len(cores))
            factories = [partial(_warm, options.warm_up, RknnBackend, files, platform, n) for n in cores]
            return Pool(factories, cores, timeout=options.timeout, lend_timeout=options.lend_timeout)

        return on_board
    if options.cores not in ("auto", 1):
        raise ValueError(f"cores={options.cores!r} is for the NPU; the {name} backend has one context")
    one: Callable[[], Backend]
    if name in _ON_CPU:
        one = partial(_ON_CPU[name], files[0], options.threads)
    else:
        one = partial(provider_of(name), artifact, files[0], options.toolchain)
    return lambda: Pool(
        [one], [None], timeout=None, lend_timeout=options.lend_timeout, start_timeout=_COMPILE_SECONDS
    )


def _warm(warm_up: bool, make: Callable[..., RknnBackend], *arguments: object) -> Backend:
    """A context that has shown of each of its shapes that it computes it."""
    backend = make(*arguments)
    try:
        for shape in backend.shapes if warm_up else ():
            _check(backend, shape)
    except BaseException:
        backend.close()
        raise
    return backend


def _check(backend: RknnBackend, shape: Shape) -> None:
    """Check a shape; a call that fails now and then is no reason to give a core up."""
    for _ in range(_CHECKS - 1):
        try:
            return backend.check(shape)
        except FailedCallError:
            continue
    backend.check(shape)


class _OnnxFallback:
    """The same artifact on the CPU, loaded when it is first needed."""

    def __init__(self, artifact: Artifact, options: Options) -> None:
        self._artifact = artifact
        self._options = Options(
            backend="onnx",
            truncate=options.truncate,
            check_finite=options.check_finite,
            threads=options.threads,
        )
        self._model: NpuModel | None = None
        self._lock = threading.Lock()

    def __call__(self, inputs: Arrays) -> Outputs:
        with self._lock:
            if self._model is None:
                self._model = open_model(self._artifact, self._options)
        return self._model.run(inputs)

    def close(self) -> None:
        """Free the model, if it was needed."""
        with self._lock:
            if self._model is not None:
                self._model.close()
