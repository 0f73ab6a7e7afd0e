"""Which Rockchip SoC this is, and which versions of the vendor's libraries it has."""

from __future__ import annotations

import mmap
import re
from pathlib import Path

from tfbert_npu.platforms import PLATFORMS, Platform, platform_named

ROOT = Path("/")

_COMPATIBLE = ("proc/device-tree/compatible", "sys/firmware/devicetree/base/compatible")
LIBRARIES = ("usr/lib/librknnrt.so", "usr/lib64/librknnrt.so", "usr/lib/aarch64-linux-gnu/librknnrt.so")
_CGROUP = (
    ("sys/fs/cgroup/memory.max", "sys/fs/cgroup/memory.current"),
    ("sys/fs/cgroup/memory/memory.limit_in_bytes", "sys/fs/cgroup/memory/memory.usage_in_bytes"),
)
_VERSION = re.compile(rb"librknnrt version: (\d+\.\d+\.\d+)")


def compatible(root: Path | None = None) -> tuple[str, ...]:
    """What the board is to the device tree, such as `("radxa,rock-5b", "rockchip,rk3588")`; may be empty."""
    for name in _COMPATIBLE:
        try:
            content = ((root or ROOT) / name).read_bytes()
        except OSError:
            continue
        return tuple(part.decode("ascii", "replace") for part in content.split(b"\0") if part)
    return ()


def board_platform(root: Path | None = None) -> Platform | None:
    """The SoC of this board, or None if it is none with a Rockchip NPU."""
    for entry in compatible(root):
        name = entry.partition(",")[2]
        if entry.startswith("rockchip,") and name in PLATFORMS:
            return platform_named(name)
    return None


def library(root: Path | None = None) -> Path | None:
    """The vendor's C runtime, librknnrt.so, where it is installed."""
    return next((path for name in LIBRARIES if (path := (root or ROOT) / name).is_file()), None)


def library_version(path: Path) -> str | None:
    """The version that librknnrt.so carries in itself, such as `"2.3.2"`, read without loading it."""
    with open(path, "rb") as stream:
        if path.stat().st_size == 0:
            return None
        with mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as content:
            match = _VERSION.search(content)
            return None if match is None else match.group(1).decode()


def version_tuple(version: str) -> tuple[int, ...]:
    """`"2.3.2"` as numbers, which compare as versions do."""
    return tuple(int(part) for part in re.findall(r"\d+", version)[:3])


def available_memory(root: Path | None = None) -> int | None:
    """Bytes that can be had without swapping, or None where the system does not say.

    That is `MemAvailable`, or what a container's limit (cgroup, version 2 or 1) leaves of it.
    """
    root = root or ROOT
    match = re.search(r"MemAvailable:\s+(\d+) kB", _text(root / "proc/meminfo"))
    found = [] if match is None else [int(match.group(1)) * 1024]
    for limit, used in _CGROUP:
        most, now = _text(root / limit).strip(), _text(root / used).strip()
        if most.isdecimal() and now.isdecimal():
            found.append(max(int(most) - int(now), 0))
    return min(found, default=None)


def temperatures(root: Path | None = None) -> dict[str, float]:
    """Degrees Celsius of each thermal zone by its name; a sensor that is switched off is left out."""
    found = {}
    for zone in sorted(((root or ROOT) / "sys/class/thermal").glob("thermal_zone*")):
        degrees = _text(zone / "temp").strip()
        if degrees.lstrip("-").isdecimal():
            found[_text(zone / "type").strip() or zone.name] = int(degrees) / 1000
    return found


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii", errors="replace")
    except OSError:
        return ""
