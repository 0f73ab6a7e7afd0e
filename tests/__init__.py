"""A package, so that `tests.runtime` is ours: tf2onnx installs a top-level `tests` of its own."""
