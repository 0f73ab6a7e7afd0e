"""One conversion, one process: rknn-toolkit2 is spoken to from outside its environment."""

from tfbert_npu.export.worker.limits import Limits, WorkerError
from tfbert_npu.export.worker.session import HybridFiles, VendorSession

__all__ = ["HybridFiles", "Limits", "VendorSession", "WorkerError"]
