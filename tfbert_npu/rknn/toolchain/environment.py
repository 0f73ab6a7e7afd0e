"""Where a toolchain is: an explicit Python, the environment variable, or the user's data directory."""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from tfbert_npu.errors import TfbertNpuError

ToolkitVersion = Literal["2.5.0", "2.3.2"]
SUPPORTED_VERSIONS: tuple[str, ...] = get_args(ToolkitVersion)
DEFAULT_VERSION: ToolkitVersion = "2.5.0"

VARIABLE = "TFBERT_NPU_TOOLCHAIN"
"""Environment variable: a Python interpreter with rknn-toolkit2, or the virtual environment that holds it."""

# What the toolchain's Python says of itself. Importing rknn takes seconds; its metadata says as much.
_PROBE = """
import importlib.metadata, importlib.util, json, platform
def version(name):
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None
print(json.dumps({
    "toolkit": version("rknn-toolkit2"), "torch": version("torch"), "numpy": version("numpy"),
    "onnx": version("onnx"), "python": platform.python_version(), "machine": platform.machine(),
}))
"""


class ToolchainError(TfbertNpuError):
    """The toolchain is missing or broken, or a conversion in it failed."""


@dataclass(frozen=True)
class Toolchain:
    """A Python interpreter that has rknn-toolkit2."""

    python: Path
    """The interpreter."""
    version: str
    """Version of rknn-toolkit2; the board's runtime must not be older."""
    torch: str | None
    """Version of torch, or None where the stand-in serves."""
    python_version: str
    """Version of the interpreter."""
    machine: str
    """Architecture, `"x86_64"` or `"aarch64"`."""


def toolchain_directory(version: str = DEFAULT_VERSION) -> Path:
    """The virtual environment that `toolchain install` makes when no directory is given.

    It follows the XDG base directory specification: `$XDG_DATA_HOME/tfbert-npu/toolchain-2.5.0`, by default
    below `~/.local/share`.
    """
    base = os.environ.get("XDG_DATA_HOME", "")
    root = Path(base) if os.path.isabs(base) else Path.home() / ".local" / "share"
    return root / "tfbert-npu" / f"toolchain-{check_version(version)}"


def find_toolchain(python: str | os.PathLike[str] | None = None, version: str | None = None) -> Toolchain:
    """The toolchain to use.

    Args:
        python: A Python interpreter or a virtual environment that has rknn-toolkit2. By default the one that
            the environment variable TFBERT_NPU_TOOLCHAIN names, else what `toolchain install` made, the
            newest version first.
        version: Demand this version of rknn-toolkit2.

    Raises:
        ToolchainError: There is none, it does not run, or its version is another one.
    """
    if version is not None:
        check_version(version)
    given = os.fspath(python) if python is not None else os.environ.get(VARIABLE, "")
    if given:
        found = probe(interpreter(Path(given).expanduser()))
        if version is not None and found.version != version:
            raise ToolchainError(
                f"{given} has rknn-toolkit2 {found.version}, not {version}",
                f"run `tfbert-npu toolchain install --version {version}`",
            )
        return found
    for candidate in (version,) if version else SUPPORTED_VERSIONS:
        directory = toolchain_directory(candidate)
        if read_marker(directory).get("version") == candidate:
            return probe(interpreter(directory))
    wanted = f" --version {version}" if version else ""
    raise ToolchainError(
        "there is no toolchain",
        f"run `tfbert-npu toolchain install{wanted}`, or name a Python that has rknn-toolkit2 by --python or "
        f"{VARIABLE}",
    )


MARKER = "tfbert-npu-toolchain.json"
"""Marks an environment as ours; it names the version only once the environment is complete."""


def read_marker(directory: Path) -> dict[str, str]:
    """The marker of an environment that `toolchain install` made; empty where there is none."""
    try:
        value = json.loads((directory / MARKER).read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


def interpreter(path: Path) -> Path:
    """The interpreter of a virtual environment, or the interpreter itself."""
    if path.is_dir():
        path = path / "bin" / "python"
    if not path.exists():
        raise ToolchainError(f"{path} does not exist", "run `tfbert-npu toolchain install`")
    return path.absolute()  # not resolved: the link's place is what makes it a virtual environment


def probe(python: Path) -> Toolchain:
    """Ask an interpreter which rknn-toolkit2 it has.

    Raises:
        ToolchainError: It does not run or has none.
    """
    try:
        done = subprocess.run(
            [os.fspath(python), "-I", "-c", _PROBE], capture_output=True, text=True, timeout=60, check=True
        )
        facts = json.loads(done.stdout)
    except subprocess.CalledProcessError as error:
        last = (error.stderr.strip().splitlines() or ["no message"])[-1]
        raise ToolchainError(f"{python} is no working Python interpreter: {last}") from error
    except (OSError, subprocess.TimeoutExpired, json.JSONDecodeError) as error:
        raise ToolchainError(f"{python} is no working Python interpreter: {error}") from error
    if facts["toolkit"] is None:
        raise ToolchainError(f"{python} has no rknn-toolkit2", "run `tfbert-npu toolchain install`")
    return Toolchain(
        python=python,
        version=facts["toolkit"],
        torch=facts["torch"],
        python_version=facts["python"],
        machine=facts["machine"],
    )


def check_version(version: str) -> str:
    """The version, if it is a supported one."""
    if version not in SUPPORTED_VERSIONS:
        raise ValueError(f"toolkit version must be one of {SUPPORTED_VERSIONS}, got {version!r}")
    return version
