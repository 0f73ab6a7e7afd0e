"""How much memory an artifact takes on the board, told before it is loaded."""

from __future__ import annotations

from tfbert_npu.artifact.manifest import Manifest
from tfbert_npu.runtime import soc
from tfbert_npu.runtime.errors import BackendError

_MIB = 2**20


def memory_estimate(manifest: Manifest, contexts: int) -> int:
    """Bytes that the driver takes for a number of contexts.

    Each context has its own weights, as large as the file, and its own memory for what passes between
    operators, which the compiler's report gives for every shape.
    """
    weights = sum(file.size for file in manifest.rknn_files)
    internal = max((cost.get("internal_mb", 0.0) for cost in manifest.cost.values()), default=0.0)
    return contexts * int(weights + internal * _MIB)


def check_memory(manifest: Manifest, contexts: int) -> None:
    """Make sure that there is room, for the driver's own way of saying so is to be killed.

    Raises:
        BackendError: There is too little free memory.
    """
    needed = memory_estimate(manifest, contexts)
    # While a context is made, Python holds the file once more.
    needed += max((file.size for file in manifest.rknn_files), default=0)
    free = soc.available_memory()
    if free is not None and needed > free:
        raise BackendError(
            f"{contexts} contexts need about {needed // _MIB} MiB and {free // _MIB} MiB are free",
            "use fewer cores or end other programs",
        )
