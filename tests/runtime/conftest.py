"""A board: its device tree, and the double of the vendor's software."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.runtime.artifacts import write_artifact
from tests.runtime.double import lite
from tests.runtime.double.driver import Driver
from tests.runtime.emulation import wheel
from tfbert_npu.runtime import soc

Board = Callable[..., Driver]
EMULATED = "TFBERT_NPU_EMULATED" in os.environ
"""Whether this is the emulated aarch64 Python, which has the vendor's wheel."""


ELF_AARCH64 = b"\x7fELF\x02\x01\x01".ljust(16, b"\0") + b"\x03\0\xb7\0" + b"\0" * 44


def make_board(root: Path, soc_name: str = "rk3588", version: str = "2.5.0") -> None:
    tree = root / "proc" / "device-tree"
    tree.mkdir(parents=True, exist_ok=True)
    (tree / "compatible").write_bytes(b"radxa,rock-5b\0rockchip," + soc_name.encode() + b"\0")
    library = root / "usr" / "lib"
    library.mkdir(parents=True, exist_ok=True)
    (library / "librknnrt.so").write_bytes(
        ELF_AARCH64 + b"librknnrt version: %s (429f97ae6b)\0" % version.encode()
    )
    node = root / "dev" / "dri" / "renderD129"
    node.parent.mkdir(parents=True, exist_ok=True)
    node.touch()
    event = root / "sys" / "class" / "drm" / node.name / "device" / "uevent"
    event.parent.mkdir(parents=True, exist_ok=True)
    event.write_text("DRIVER=RKNPU\nOF_COMPATIBLE_0=rockchip,rk3588-rknpu\n")


@pytest.fixture
def board(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Board:
    """Make this machine a board with a given SoC; gives its driver."""

    def make(soc_name: str = "rk3588", **options: object) -> Driver:
        driver = Driver(**options)  # type: ignore[arg-type]
        if EMULATED:
            monkeypatch.setitem(sys.modules, "rknnlite.api", wheel.install(driver))
            return driver
        make_board(tmp_path / "board", soc_name, driver.version)
        monkeypatch.setattr(soc, "ROOT", tmp_path / "board")
        monkeypatch.setitem(sys.modules, "rknnlite", type(sys)("rknnlite"))
        monkeypatch.setitem(sys.modules, "rknnlite.api", lite.install(driver))
        return driver

    return make


@pytest.fixture
def artifact(tmp_path: Path) -> Path:
    return write_artifact(tmp_path / "artifact")
