"""Whether what a board has can be used: driver, device node, library, Python, container.

That a file is there says little: a library may be a web page, a node may be another device's.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tfbert_npu.runtime import soc

Level = Literal["error", "warning", "note"]

WHEEL_LIBRARY = "/usr/lib/librknnrt.so"
"""The only place where the vendor's wheel (rknn-toolkit-lite2 2.5.0) looks."""
WHEEL_PYTHONS = ((3, 7), (3, 12))
"""The versions that have a wheel of rknn-toolkit-lite2 2.5.0 on PyPI."""
OLDEST_DRIVER = (0, 8, 8)
"""What librknnrt asks for."""
FAILING_DRIVERS = ((0, 9, 2), (0, 9, 5))
"""On these RK3588 boards fail on cores 1 and 2 (the vendor's FAQ, and public threads: "failed to submit")."""

_AARCH64, _X86_64 = 183, 62
_CONTAINER = (".dockerenv", "run/.containerenv")
_OLD_NODE = "dev/rknpu"
_DRIVERS = ("RKNPU", "rknpu")


@dataclass(frozen=True)
class Finding:
    """Something that stands in the way, or deserves to be known."""

    level: Level
    what: str
    remedy: str


def check_driver(version: str | None, chip: str) -> Iterator[Finding]:
    """Versions of the kernel's driver that do not work."""
    if version is None:
        return
    number = soc.version_tuple(version)
    if number < OLDEST_DRIVER:
        yield Finding(
            "error",
            f"the NPU driver {version} is too old, librknnrt asks for 0.8.8 or newer",
            "update the kernel of the board's vendor",
        )
    elif chip.startswith("rk3588") and FAILING_DRIVERS[0] <= number <= FAILING_DRIVERS[1]:
        yield Finding(
            "error",
            f"the NPU driver {version} fails on cores 1 and 2 of an RK3588, as 0.9.2 to 0.9.5 do",
            "update the kernel to driver 0.9.6 or newer; until then load_npu(..., cores=[0])",
        )


def check_library(path: Path, root: Path) -> Iterator[Finding]:
    """A librknnrt.so that is something else, or lies where the wheel does not look."""
    shown = f"/{path.relative_to(root)}"
    with open(path, "rb") as stream:
        head = stream.read(64)
    found = _not_aarch64(head)
    if found is not None:
        yield Finding(
            "error",
            f"{shown} is {found}, not the library for aarch64",
            f"download librknnrt.so of the vendor's rknpu2 release for Linux aarch64 to {WHEEL_LIBRARY}",
        )
    elif shown != WHEEL_LIBRARY:
        yield Finding(
            "error",
            f"librknnrt.so lies in {os.path.dirname(shown)}, and the vendor's wheel looks in /usr/lib only",
            f"sudo ln -s {shown} {WHEEL_LIBRARY}",
        )


def _not_aarch64(head: bytes) -> str | None:
    if not head:
        return "empty"
    if head.startswith(b"version https://git-lfs"):
        return "a git-lfs pointer"
    if head.lstrip().startswith(b"<"):
        return "a web page"
    if head[:4] != b"\x7fELF":
        return "no ELF file"
    machine = int.from_bytes(head[18:20], "little")
    if head[4:5] != b"\x02" or machine != _AARCH64:
        return "for x86-64" if machine == _X86_64 else f"for another processor (ELF machine {machine})"
    return None


def check_nodes(driver: str | None, root: Path) -> Iterator[Finding]:
    """The device node that the runtime opens: there, the NPU's, and ours to open."""
    old = root / _OLD_NODE
    node = _drm_node(root)
    if node is None and old.is_symlink():
        yield Finding(
            "error",
            f"/{_OLD_NODE} is a symbolic link to {os.readlink(old)}, which is no node of the NPU's driver",
            f"sudo rm /{_OLD_NODE}, and load the rknpu module or boot the board vendor's kernel",
        )
        return
    if node is None and not old.exists():
        if driver is None:
            yield from _no_driver(root)
            return
        remedy = "sudo modprobe rknpu, and look at dmesg"
        if in_container(root):
            remedy = "start the container with --device /dev/dri"
        yield Finding("error", "the NPU's driver is loaded, and its device node is not there", remedy)
        return
    path = node or old
    try:
        os.close(os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC))
    except PermissionError:
        yield Finding(
            "error",
            f"/{path.relative_to(root)} may not be opened by this user",
            "sudo usermod -aG render,video $USER, and log in again",
        )
    except OSError as error:
        yield Finding(
            "error",
            f"/{path.relative_to(root)} cannot be opened ({error.strerror})",
            "load the rknpu module again, or restart the board",
        )


def _no_driver(root: Path) -> Iterator[Finding]:
    accelerators = (root / "sys/class/accel").glob("*/device/uevent")
    if (root / "sys/module/rocket").exists() or any("rocket" in _text(path) for path in accelerators):
        yield Finding(
            "error",
            "this kernel has the mainline NPU driver (rocket), which the vendor's runtime cannot use",
            "boot the board vendor's kernel (5.10 or 6.1 with rknpu), or use backend='onnx'",
        )
        return
    yield Finding(
        "error",
        "the kernel has no NPU driver (rknpu)",
        "boot the board vendor's kernel, or load the rknpu module",
    )


def _drm_node(root: Path) -> Path | None:
    """The render node whose driver is the NPU's; its number differs between boards."""
    unknown = None
    for device in sorted((root / "dev/dri").glob("render*")):
        event = root / "sys/class/drm" / device.name / "device/uevent"
        if not event.exists():
            # A kernel that says nothing about it: the NPU's node is the second by custom.
            unknown = device if device.name == "renderD129" else unknown
        elif any(driver in _text(event) for driver in _DRIVERS):
            return device
    return unknown


def check_python(wheel: str | None) -> Iterator[Finding]:
    """A Python that the vendor has no wheel for."""
    if wheel is not None:
        return
    version = sys.version_info[:2]
    low, high = WHEEL_PYTHONS
    if low <= version <= high:
        yield Finding("error", "rknn-toolkit-lite2 is not installed", "pip install rknn-toolkit-lite2")
    else:
        yield Finding(
            "error",
            f"rknn-toolkit-lite2 has no wheel for Python {version[0]}.{version[1]}",
            f"make a virtual environment of Python {low[0]}.{low[1]} to {high[0]}.{high[1]}",
        )


def check_hidden_board(driver: str | None, root: Path) -> Iterator[Finding]:
    """A container that sees the host's NPU driver and not its device tree."""
    if in_container(root) and (driver is not None or _drm_node(root) is not None):
        yield Finding(
            "error",
            "this container has the NPU's driver and not the device tree, which says which SoC it is",
            "start it with -v /sys/firmware/devicetree:/sys/firmware/devicetree:ro --device /dev/dri",
        )


def in_container(root: Path) -> bool:
    """Whether this is a container of docker or podman."""
    return any((root / name).exists() for name in _CONTAINER)


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii", errors="replace")
    except OSError:
        return ""
