"""One conversion, one process: rknn-toolkit2 is spoken to from outside its environment."""

from tfbert_npu.export.worker.session import HybridFiles, Limits, VendorSession, WorkerError

__all__ = ["HybridFiles", "Limits", "VendorSession", "WorkerError"]
