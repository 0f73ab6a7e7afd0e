"""The toolchain: rknn-toolkit2 in an environment of its own, because it cannot live beside TensorFlow."""

from tfbert_npu.rknn.toolchain.environment import (
    DEFAULT_VERSION,
    SUPPORTED_VERSIONS,
    Toolchain,
    find_toolchain,
    toolchain_directory,
)
from tfbert_npu.rknn.toolchain.install import install_toolchain

__all__ = [
    "DEFAULT_VERSION",
    "SUPPORTED_VERSIONS",
    "Toolchain",
    "find_toolchain",
    "install_toolchain",
    "toolchain_directory",
]
