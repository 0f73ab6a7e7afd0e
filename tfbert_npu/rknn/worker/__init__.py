"""One conversion, one process: rknn-toolkit2 is spoken to from outside its environment."""

from tfbert_npu.rknn.worker.limits import Limits, WorkerError
from tfbert_npu.rknn.worker.session import HybridFiles, VendorSession

__all__ = ["HybridFiles", "Limits", "VendorSession", "WorkerError"]
