"""The toolchain for the slow tests: one environment for all of them, made once and kept."""

from __future__ import annotations

import platform
import sys

import pytest

from tfbert_npu.rknn.toolchain import Toolchain, find_toolchain, install_toolchain
from tfbert_npu.rknn.toolchain.environment import ToolchainError


@pytest.fixture(scope="session")
def toolchain() -> Toolchain:
    """rknn-toolkit2 of the default version, installed where a user's would be if it is not there yet."""
    if sys.platform != "linux" or platform.machine() not in ("x86_64", "aarch64"):
        pytest.skip("rknn-toolkit2 runs on Linux on x86_64 and aarch64 only")
    try:
        return find_toolchain()
    except ToolchainError:
        return install_toolchain()
