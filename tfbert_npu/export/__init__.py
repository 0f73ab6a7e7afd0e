"""A model leaves the package: as a SavedModel, as ONNX, or as a directory for a Rockchip NPU."""
