"""The artifact directory: what an export writes and the runtime reads. No TensorFlow, no vendor code."""

from tfbert_npu.artifact.manifest import Manifest, ModelFile, SupportFile, TensorSpec
from tfbert_npu.artifact.rknn_file import RknnFile, read_rknn

__all__ = ["Manifest", "ModelFile", "RknnFile", "SupportFile", "TensorSpec", "read_rknn"]
