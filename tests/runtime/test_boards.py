"""Boards on which something is there and cannot be used: the doctor never calls them ready."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.runtime.artifacts import write_artifact
from tests.runtime.conftest import ELF_AARCH64, make_board
from tfbert_npu.runtime import doctor, soc

LIBRARY, NODE = "usr/lib/librknnrt.so", "dev/dri/renderD129"
VERSION = b"librknnrt version: 2.5.0 (429f97ae6b)\0"
Change = Callable[[Path], object]


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    root = tmp_path / "board"
    make_board(root)
    write(root, "sys/module/rknpu/version", "0.9.8\n")
    write(root, "proc/meminfo", "MemAvailable:    4194304 kB\n")
    monkeypatch.setattr(soc, "ROOT", root)
    monkeypatch.setattr(doctor, "_package", dict.fromkeys(doctor.PACKAGES, "1.0").get)
    return root


def write(root: Path, name: str, content: str | bytes) -> None:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())


def remove(root: Path, *names: str) -> None:
    for name in names:
        (root / name).unlink()


def drivers(version: str) -> Change:
    return lambda root: write(root, "sys/module/rknpu/version", version)


def library(content: bytes) -> Change:
    return lambda root: write(root, LIBRARY, content)


def container(root: Path) -> None:
    remove(root, "proc/device-tree/compatible")
    write(root, ".dockerenv", "")


def podman(root: Path) -> None:
    remove(root, "proc/device-tree/compatible", "sys/module/rknpu/version")
    write(root, "run/.containerenv", "")


def no_node(root: Path) -> None:
    remove(root, NODE)


def no_node_in_a_container(root: Path) -> None:
    remove(root, NODE)
    write(root, ".dockerenv", "")


def another_device(root: Path) -> None:
    """renderD129 is the GPU's, and nothing is the NPU's."""
    write(root, "sys/class/drm/renderD129/device/uevent", "DRIVER=panthor\n")


def closed_node(root: Path) -> None:
    remove(root, NODE)
    (root / NODE).mkdir()  # what no program can open for writing


def old_link(root: Path) -> None:
    remove(root, NODE)
    (root / "dev/rknpu").symlink_to("dri/renderD129")


def elsewhere(folder: str) -> Change:
    def change(root: Path) -> None:
        remove(root, LIBRARY)
        write(root, f"{folder}/librknnrt.so", ELF_AARCH64 + VERSION)

    return change


def mainline(root: Path) -> None:
    remove(root, NODE, "sys/module/rknpu/version")
    write(root, "sys/module/rocket/initstate", "live\n")


def mainline_by_its_node(root: Path) -> None:
    remove(root, NODE, "sys/module/rknpu/version")
    write(root, "sys/class/accel/accel0/device/uevent", "DRIVER=rocket\n")


ELF_X86 = ELF_AARCH64[:18] + b"\x3e\0" + ELF_AARCH64[20:]
ELF_32 = ELF_AARCH64[:4] + b"\x01" + ELF_AARCH64[5:18] + b"\x28\0" + ELF_AARCH64[20:]
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 7\n"


@pytest.mark.parametrize(
    ("change", "what", "remedy"),
    [
        (drivers("0.8.2"), "driver 0.8.2 is too old", "update the kernel"),
        (drivers("RKNPU driver: v0.7.2"), "driver 0.7.2 is too old", "update the kernel"),
        (drivers("0.9.2"), "0.9.2 fails on cores 1 and 2", "cores=[0]"),
        (drivers("0.9.3"), "0.9.3 fails on cores 1 and 2", "0.9.6 or newer"),
        (drivers("0.9.5"), "0.9.5 fails on cores 1 and 2", "0.9.6 or newer"),
        (container, "this container has the NPU's driver", "/sys/firmware/devicetree"),
        (podman, "this container has the NPU's driver", "--device /dev/dri"),
        (no_node, "its device node is not there", "modprobe rknpu"),
        (no_node_in_a_container, "its device node is not there", "--device /dev/dri"),
        (another_device, "its device node is not there", "modprobe rknpu"),
        (closed_node, "/dev/dri/renderD129 cannot be opened", "load the rknpu module again"),
        (old_link, "/dev/rknpu is a symbolic link to dri/renderD129", "sudo rm /dev/rknpu"),
        (library(b"<!DOCTYPE html><html>"), "is a web page", "download librknnrt.so"),
        (library(b"\n  <html><body>404"), "is a web page", "download librknnrt.so"),
        (library(POINTER), "is a git-lfs pointer", "download librknnrt.so"),
        (library(b""), "is empty", "download librknnrt.so"),
        (library(ELF_X86 + VERSION), "is for x86-64", "download librknnrt.so"),
        (library(ELF_32 + VERSION), "for another processor (ELF machine 40)", "download librknnrt.so"),
        (library(b"PK\x03\x04"), "is no ELF file", "download librknnrt.so"),
        (elsewhere("usr/lib64"), "lies in /usr/lib64", "sudo ln -s /usr/lib64/librknnrt.so"),
        (elsewhere("usr/lib/aarch64-linux-gnu"), "lies in /usr/lib/aarch64-linux-gnu", "sudo ln -s"),
        (mainline, "mainline NPU driver (rocket)", "backend='onnx'"),
        (mainline_by_its_node, "mainline NPU driver (rocket)", "boot the board vendor's kernel"),
    ],
)
def test_not_ready_and_the_remedy(root: Path, change: Change, what: str, remedy: str) -> None:
    assert doctor.examine().verdict == "ready: 3 NPU cores of rk3588"
    change(root)
    report = doctor.examine()
    assert not report.verdict.startswith("ready")
    assert not report.healthy
    (finding,) = (finding for finding in report.findings if finding.level == "error")
    assert what in finding.what
    assert remedy in finding.remedy


@pytest.mark.parametrize("version", [(3, 13), (3, 14), (3, 6)])
def test_a_python_without_a_wheel(
    root: Path, monkeypatch: pytest.MonkeyPatch, version: tuple[int, int]
) -> None:
    monkeypatch.setattr(sys, "version_info", (*version, 0, "final", 0))
    monkeypatch.setattr(doctor, "_package", {}.get)
    report = doctor.examine()
    assert not report.healthy
    assert f"no wheel for Python {version[0]}.{version[1]}" in report.findings[0].what
    assert "3.7 to 3.12" in report.findings[0].remedy


def test_a_node_of_another_user_s(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> int:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "open", refuse)
    (finding,) = doctor.examine().findings
    assert "may not be opened by this user" in finding.what
    assert "usermod -aG render" in finding.remedy


@pytest.mark.parametrize(
    "files",
    [
        {"sys/fs/cgroup/memory.max": "104857600", "sys/fs/cgroup/memory.current": "94371840"},
        {
            "sys/fs/cgroup/memory/memory.limit_in_bytes": "104857600",
            "sys/fs/cgroup/memory/memory.usage_in_bytes": "94371840",
        },
    ],
    ids=["v2", "v1"],
)
def test_a_container_s_memory_counts(root: Path, tmp_path: Path, files: dict[str, str]) -> None:
    for name, content in files.items():
        write(root, name, content)
    assert doctor.examine(write_artifact(tmp_path / "a")).free_memory_mb == 10
    write(root, "sys/fs/cgroup/memory.max", "max")
    write(root, "sys/fs/cgroup/memory/memory.limit_in_bytes", str(2**63 - 4096))
    assert doctor.examine().free_memory_mb == 4096


@pytest.mark.parametrize("name", ["rk3588s2", "rk3588s", "rk3576"])
def test_siblings_are_ready(root: Path, name: str) -> None:
    make_board(root, name)
    assert doctor.examine().verdict.startswith("ready: ")


def test_the_npu_s_node_has_any_number(root: Path) -> None:
    write(root, "sys/class/drm/renderD129/device/uevent", "DRIVER=panthor\n")
    write(root, "dev/dri/renderD130", "")
    write(root, "sys/class/drm/renderD130/device/uevent", "DRIVER=RKNPU\n")
    assert doctor.examine().healthy


def test_an_old_kernel_s_node(root: Path) -> None:
    remove(root, NODE)
    write(root, "dev/rknpu", "")
    assert doctor.examine().healthy
