"""Make the toolchain's virtual environment."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib.resources import files
from pathlib import Path

from tfbert_npu.rknn.toolchain.environment import (
    DEFAULT_VERSION,
    MARKER,
    Toolchain,
    ToolchainError,
    check_version,
    interpreter,
    probe,
    read_marker,
    toolchain_directory,
)

_PYTHONS = ((3, 10), (3, 12))
_MACHINES = ("x86_64", "aarch64")


def install_toolchain(
    version: str = DEFAULT_VERSION,
    directory: str | os.PathLike[str] | None = None,
    *,
    with_torch: bool = False,
    base_python: str | os.PathLike[str] | None = None,
    on_progress: Callable[[str], None] | None = None,
) -> Toolchain:
    """Install rknn-toolkit2 and what it needs into a virtual environment of its own.

    An environment that is complete is left as it is; an unfinished one is made again. The download is about
    125 MB, the environment 500 MB; CUDA is never among it. Torch and OpenCV are replaced by stand-ins,
    because no graph that this package writes needs them; one that does says so.

    Args:
        version: Version of rknn-toolkit2, `"2.5.0"` or `"2.3.2"`. The board's runtime must not be older.
        directory: Where to; by default `toolchain_directory(version)`.
        with_torch: Install the CPU wheel of torch as well, which "gdq" quantization and a few rewriting rules
            for foreign graphs call.
        base_python: Interpreter to build the environment on, Python 3.10 to 3.12; by default this one.
        on_progress: Called with a line of text as each step begins.

    Raises:
        ToolchainError: The machine or Python is not supported, the directory holds something else, or a step
            failed; the message names pip's log.
    """
    check_version(version)
    say = on_progress or (lambda line: None)
    target = (Path(directory) if directory is not None else toolchain_directory(version)).expanduser()
    wanted = _fingerprint(version, with_torch)
    with _lock(target):
        if read_marker(target).get("fingerprint") == wanted:
            say(f"{target} is complete")
            return probe(interpreter(target))
        if target.exists() and not _is_ours(target):
            raise ToolchainError(f"{target} exists and is no toolchain", "give another --dir or remove it")
        base = os.fspath(base_python) if base_python is not None else sys.executable
        _check_machine(base)
        if shutil.disk_usage(_existing_parent(target)).free < (3 if with_torch else 1) * 2**30:
            raise ToolchainError(
                f"less than {3 if with_torch else 1} GiB is free at {target}", "give another --dir"
            )
        _build(target, base, version, with_torch, say)
        (target / MARKER).write_text(json.dumps({"fingerprint": wanted, "version": version}) + "\n")
    return probe(interpreter(target))


def _build(target: Path, base: str, version: str, with_torch: bool, say: Callable[[str], None]) -> None:
    if target.exists():
        shutil.rmtree(target)
    target.mkdir(parents=True)
    (target / MARKER).write_text("{}\n")  # ours, and unfinished
    log = target / "install.log"
    say(f"making a virtual environment in {target}")
    _step([base, "-m", "venv", os.fspath(target)], log)
    python = os.fspath(target / "bin" / "python")
    say(f"installing rknn-toolkit2 {version} and its requirements (125 MB)")
    pip = [python, "-m", "pip", "install", "--disable-pip-version-check", "--no-input"]
    _step([*pip, "--no-deps", "--only-binary=:all:", "-r", _requirements(version)], log)
    if with_torch:
        say("installing torch for the CPU")
        _step([*pip, "-r", _requirements("torch")], log)
    say("trying it")
    standins = os.fspath(Path(str(files(__package__) / "standins")))
    trial = f"import sys; sys.path.append({standins!r}); from rknn.api import RKNN; RKNN().release()"
    _step([python, "-I", "-c", trial], log)


def _step(command: list[str], log: Path) -> None:
    with open(log, "a", encoding="utf-8") as stream:
        stream.write(f"$ {' '.join(command)}\n")
        stream.flush()
        environment = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "PYTHONHOME")}
        done = subprocess.run(command, stdout=stream, stderr=subprocess.STDOUT, env=environment, check=False)
    if done.returncode:
        tail = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()[-1]
        raise ToolchainError(f"installing the toolchain failed, see {log}: {tail.strip()}")


def _requirements(name: str) -> str:
    return os.fspath(Path(str(files(__package__) / f"requirements-{name}.txt")))


def _fingerprint(version: str, with_torch: bool) -> str:
    names = (version, "torch") if with_torch else (version,)
    text = "".join(Path(_requirements(name)).read_text(encoding="utf-8") for name in names)
    return hashlib.sha256(text.encode()).hexdigest()


def _is_ours(target: Path) -> bool:
    return target.is_dir() and ((target / MARKER).is_file() or not any(target.iterdir()))


def _check_machine(base: str) -> None:
    if sys.platform != "linux" or platform.machine() not in _MACHINES:
        raise ToolchainError(
            f"rknn-toolkit2 runs on Linux on {' or '.join(_MACHINES)}, not on {sys.platform} "
            f"{platform.machine()}",
            "export on such a machine",
        )
    try:
        said = subprocess.run(
            [base, "-c", "import sys; print(*sys.version_info[:2])"],
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
        ).stdout.split()
    except (OSError, subprocess.SubprocessError) as error:
        raise ToolchainError(f"{base} is no working Python interpreter: {error}") from error
    if not _PYTHONS[0] <= (int(said[0]), int(said[1])) <= _PYTHONS[1]:
        raise ToolchainError(
            f"{base} is Python {'.'.join(said)}, and rknn-toolkit2 has wheels for 3.10 to 3.12",
            "name another one with --base-python",
        )


def _existing_parent(path: Path) -> Path:
    while not path.exists():
        path = path.parent
    return path


@contextlib.contextmanager
def _lock(target: Path) -> Iterator[None]:
    """Two installs into one directory wait for each other."""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        stream = open(target.parent / f".{target.name}.lock", "w")  # noqa: SIM115 - closed below
    except OSError as error:
        raise ToolchainError(
            f"{target.parent} cannot be written ({error.strerror})", "give another --dir"
        ) from error
    with stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        yield
