"""What this machine has for running a model on an NPU, and what is amiss: facts first, then a verdict."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from tfbert_npu.errors import ArtifactError
from tfbert_npu.runtime import board, soc
from tfbert_npu.runtime.board import Finding
from tfbert_npu.runtime.files import read_manifest, runs_on
from tfbert_npu.runtime.memory import memory_estimate

PACKAGES = (
    "tfbert-npu", "numpy", "rknn-toolkit-lite2", "onnxruntime", "tensorflow", "tensorflow-text", "keras",
)  # fmt: skip
_DRIVER_FILES = ("sys/module/rknpu/version", "sys/kernel/debug/rknpu/version", "proc/rknpu/version")

_MIB = 2**20


@dataclass(frozen=True)
class Clock:
    """One frequency domain of the kernel's devfreq."""

    name: str
    governor: str
    current_hz: int
    most_hz: int


@dataclass(frozen=True)
class Report:
    """Facts about this machine; None where it does not say."""

    machine: str
    board: tuple[str, ...]
    """The device tree's names of the board."""
    soc: str | None
    cores: int
    driver_version: str | None
    """Of the kernel's NPU driver."""
    library: str | None
    """Where librknnrt.so is."""
    library_version: str | None
    clocks: tuple[Clock, ...]
    free_memory_mb: int | None
    packages: dict[str, str | None]
    artifact: dict[str, Any] | None = None
    findings: tuple[Finding, ...] = field(default=())

    @property
    def verdict(self) -> str:
        """One sentence."""
        if any(finding.level == "error" for finding in self.findings):
            return "not ready: see the errors"
        if self.soc is None:
            return "no Rockchip NPU here; models run on the CPU, or in the simulator"
        return f"ready: {self.cores} NPU core{'s' if self.cores > 1 else ''} of {self.soc}"

    @property
    def healthy(self) -> bool:
        """Whether there is no error."""
        return not any(finding.level == "error" for finding in self.findings)

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {**asdict(self), "verdict": self.verdict}


def examine(
    artifact_dir: str | os.PathLike[str] | None = None, root: Path | None = None, file: str | None = None
) -> Report:
    """Look at this machine, and at an artifact if one is given.

    Nothing is loaded or started: versions are read from files.

    Args:
        artifact_dir: An artifact directory that is to run here.
        root: Where the file system begins, for tests.
        file: The one of the artifact's `.rknn` files that is to run; by default all.

    Raises:
        FileNotFoundError: No artifact directory, or no such file in it.
    """
    root = root or soc.ROOT
    chip = soc.board_platform(root)
    library = soc.library(root)
    free = soc.available_memory(root)
    facts: dict[str, Any] = {
        "machine": platform.machine(),
        "board": soc.compatible(root),
        "soc": None if chip is None else chip.name,
        "cores": 0 if chip is None else chip.cores,
        "driver_version": _driver_version(root),
        "library": None if library is None else f"/{library.relative_to(root)}",
        "library_version": None if library is None else soc.library_version(library),
        "clocks": tuple(_clocks(root)),
        "free_memory_mb": None if free is None else free // _MIB,
        "packages": {name: _package(name) for name in PACKAGES},
    }
    findings = list(_on_the_machine(facts, root))
    if artifact_dir is not None:
        facts["artifact"], more = _artifact(Path(artifact_dir).expanduser(), facts, file)
        findings += more
    return Report(**facts, findings=tuple(findings))


def _on_the_machine(facts: dict[str, Any], root: Path) -> Iterator[Finding]:
    if facts["soc"] is None:
        names = ", ".join(facts["board"])
        hidden = list(board.check_hidden_board(facts["driver_version"], root))
        yield from hidden
        if "rockchip" in names:
            yield Finding("error", f"the SoC of this board ({names}) is unknown", "use backend='onnx'")
        elif not hidden and facts["packages"]["onnxruntime"] is None:
            yield Finding("note", "the CPU backend is missing", "pip install 'tfbert-npu[onnx]'")
        return
    yield from board.check_python(facts["packages"]["rknn-toolkit-lite2"])
    library = soc.library(root)
    if library is None:
        yield Finding(
            "error",
            "librknnrt.so is not installed",
            f"copy it from the vendor's rknpu2 release to {board.WHEEL_LIBRARY}",
        )
    else:
        unusable = list(board.check_library(library, root))
        yield from unusable
        if not unusable and facts["library_version"] is None:
            yield Finding(
                "warning", f"{facts['library']} does not say its version", "install the vendor's release"
            )
    yield from board.check_driver(facts["driver_version"], facts["soc"])
    yield from board.check_nodes(facts["driver_version"], root)
    for clock in facts["clocks"]:
        if clock.governor != "performance" and clock.current_hz < clock.most_hz:
            yield Finding(
                "note",
                f"{clock.name} runs at {clock.current_hz // 10**6} of {clock.most_hz // 10**6} MHz "
                f"({clock.governor})",
                f"for steady figures: echo performance | sudo tee /sys/class/devfreq/{clock.name}/governor",
            )


def _artifact(
    directory: Path, facts: dict[str, Any], file: str | None
) -> tuple[dict[str, Any], list[Finding]]:
    try:
        manifest = read_manifest(directory, file)
    except ArtifactError as error:
        return {"directory": str(directory)}, [_damaged(error)]
    findings = []
    try:
        manifest.check_files(directory)
    except ArtifactError as error:
        findings.append(_damaged(error))
    cores = max(facts["cores"], 1)
    memory = memory_estimate(manifest, cores) // _MIB
    files = manifest.rknn_files
    described = {
        "directory": str(directory),
        "head": manifest.head,
        "precision": manifest.precision,
        "platforms": sorted({file.platform for file in files if file.platform}),
        "toolkit_versions": sorted({file.toolkit_version for file in files if file.toolkit_version}),
        "shapes": [list(shape) for file in files for shape in file.shapes],
        "memory_mb": memory,
    }
    if facts["soc"] is not None:
        findings += _fit(described, facts, memory, cores)
    return described, findings


def _damaged(error: ArtifactError) -> Finding:
    return Finding("error", error.cause, error.remedy or "")


def _fit(described: dict[str, Any], facts: dict[str, Any], memory: int, cores: int) -> Iterator[Finding]:
    target = soc.platform_named(facts["soc"]).target
    if not runs_on(target, tuple(described["platforms"])):
        yield Finding(
            "error",
            f"the artifact is for {', '.join(described['platforms'])} and this board is {facts['soc']}",
            f"export it with target_platform={facts['soc']!r}",
        )
    version = facts["library_version"]
    for wanted in described["toolkit_versions"]:
        if version is not None and soc.version_tuple(version) < soc.version_tuple(wanted):
            yield Finding(
                "error",
                f"the artifact was compiled by toolkit {wanted} and librknnrt is {version}",
                f"install librknnrt.so {wanted} or newer in /usr/lib",
            )
    if facts["free_memory_mb"] is not None and memory > facts["free_memory_mb"]:
        yield Finding(
            "error",
            f"the artifact takes about {memory} MiB on {cores} cores, and "
            f"{facts['free_memory_mb']} MiB are free",
            "use fewer cores or end other programs",
        )


def _driver_version(root: Path) -> str | None:
    for name in _DRIVER_FILES:
        try:
            text = (root / name).read_text(encoding="utf-8", errors="replace")
        except OSError:
            continue  # most of them are for root alone
        match = re.search(r"\d+\.\d+\.\d+", text)
        if match is not None:
            return match.group()
    return None


def _clocks(root: Path) -> Iterator[Clock]:
    for path in sorted((root / "sys/class/devfreq").glob("*")):
        if not (path.name.endswith(".npu") or path.name == "dmc"):
            continue
        try:
            yield Clock(
                path.name,
                (path / "governor").read_text(encoding="ascii").strip(),
                int((path / "cur_freq").read_text(encoding="ascii")),
                int((path / "max_freq").read_text(encoding="ascii")),
            )
        except (OSError, ValueError):
            continue  # a domain that does not say what it does


def _package(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None
