"""An aarch64 Python with the vendor's wheel, run by qemu-user: made without root, kept in the user's cache.

    python -m tests.runtime.emulation.sysroot        # makes it and prints where it is

apt works on a state of its own, so that neither the machine's packages nor its architectures are touched; the
mirrors are those that the machine already uses. qemu's -L looks in the sysroot first for every absolute path,
so the files of a board's kernel in it make a board.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

VERSION = 1  # to be raised with every change of what is made here
TOOLKIT = "2.5.0"
PYTHONS = ("3.11", "3.12", "3.10")
WHEELS = (f"rknn-toolkit-lite2=={TOOLKIT}", "numpy<2.3", "pytest", "jsonschema", "safetensors")
PLATFORMS = ("manylinux_2_17_aarch64", "manylinux2014_aarch64", "manylinux_2_28_aarch64")
BOARD = {
    "proc/device-tree/compatible": b"radxa,rock-5b\0rockchip,rk3588\0",
    "dev/dri/renderD129": b"",
    "usr/lib/librknnrt.so": b"librknnrt version: 2.5.0 (429f97ae6b@2025-04-09T09:09:27)\0",
}


class UnavailableError(RuntimeError):
    """Emulation cannot be had here."""


@dataclass(frozen=True)
class Sysroot:
    """Where things are."""

    home: Path
    python: str
    """Version, such as `"3.11"`."""

    def command(self, *arguments: str) -> list[str]:
        """The emulated Python with arguments."""
        root = self.home / "root"
        interpreter = root / "usr" / "bin" / f"python{self.python}"
        return [os.fspath(self.home / "qemu"), "-L", os.fspath(root), os.fspath(interpreter), *arguments]

    @property
    def packages(self) -> Path:
        """For PYTHONPATH."""
        return self.home / "packages"


def sysroot() -> Sysroot:
    """The sysroot, made if there is none yet.

    Raises:
        UnavailableError: A tool or the network is missing; the message says which.
    """
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tfbert-npu"
    home = base / f"emulation-{VERSION}-{TOOLKIT}"
    if not home.is_dir():
        for tool in ("apt-get", "apt-cache", "dpkg", "dpkg-deb"):
            if shutil.which(tool) is None:
                raise UnavailableError(f"{tool} is missing: the sysroot is made of Debian's packages")
        base.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix="emulation.", dir=base) as scratch:
            made = Path(scratch) / "made"
            made.mkdir()
            _make(made, Path(scratch))
            try:
                made.rename(home)
            except OSError:  # somebody else was faster
                if not home.is_dir():
                    raise
    return Sysroot(home, (home / "python-version").read_text().strip())


def _make(home: Path, scratch: Path) -> None:
    apt = _Apt(scratch / "apt")
    apt.run("apt-get", "update")
    python = next((version for version in PYTHONS if apt.offers(f"python{version}-minimal")), None)
    if python is None:
        raise UnavailableError(f"the mirrors offer none of Python {', '.join(PYTHONS)} for arm64")
    names = (f"python{python}-minimal", f"libpython{python}-stdlib", "libffi8")
    apt.run("apt-get", "install", "--download-only", "--yes", "--no-install-recommends", *names)
    root = home / "root"
    for package in apt.archives.glob("*.deb"):
        _run("dpkg-deb", "-x", os.fspath(package), os.fspath(root))
    _qemu(home, scratch, apt)
    for name, content in BOARD.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    wheels = scratch / "wheels"
    tag = python.replace(".", "")
    _run(
        *(
            sys.executable,
            "-m",
            "pip",
            "download",
            "--quiet",
            "--only-binary=:all:",
            "--dest",
            os.fspath(wheels),
        ),
        *("--python-version", python, "--implementation", "cp", "--abi", f"cp{tag}", "--abi", "abi3"),
        *(f"--platform={name}" for name in PLATFORMS),
        *WHEELS,
    )
    for wheel in wheels.glob("*.whl"):
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(home / "packages")
    (home / "python-version").write_text(python)


def _qemu(home: Path, scratch: Path, apt: _Apt) -> None:
    for name in ("qemu-aarch64", "qemu-aarch64-static"):
        found = shutil.which(name)
        if found is not None:
            (home / "qemu").symlink_to(found)
            return
    host = subprocess.run(
        ["dpkg", "--print-architecture"], capture_output=True, text=True, check=True
    ).stdout.strip()
    # One statically linked file of a large package.
    apt.run("apt-get", "download", f"qemu-user-static:{host}", cwd=scratch)
    package = next(scratch.glob("qemu-user-static*.deb"))
    _run("dpkg-deb", "-x", os.fspath(package), os.fspath(scratch / "qemu"))
    shutil.copy2(scratch / "qemu" / "usr" / "bin" / "qemu-aarch64-static", home / "qemu")


class _Apt:
    def __init__(self, place: Path) -> None:
        for name in ("state/lists/partial", "cache/archives/partial"):
            (place / name).mkdir(parents=True)
        (place / "status").touch()
        self.archives = place / "cache" / "archives"
        host = subprocess.run(
            ["dpkg", "--print-architecture"], capture_output=True, text=True, check=True
        ).stdout.strip()
        self._options = [
            f"-oDir::State={place / 'state'}",
            f"-oDir::Cache={place / 'cache'}",
            f"-oDir::State::status={place / 'status'}",
            "-oAPT::Architecture=arm64",
            "-oAPT::Architectures::=arm64",
            f"-oAPT::Architectures::={host}",
            "-oAPT::Sandbox::User=",
        ]

    def run(self, tool: str, *arguments: str, cwd: Path | None = None) -> str:
        return _run(tool, *self._options, *arguments, cwd=cwd)

    def offers(self, package: str) -> bool:
        return re.search(r"Candidate: \d", self.run("apt-cache", "policy", package)) is not None


def _run(*command: str, cwd: Path | None = None) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=cwd)
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise UnavailableError(f"{Path(command[0]).name} failed: {last}")
    return done.stdout


if __name__ == "__main__":
    print(sysroot())
