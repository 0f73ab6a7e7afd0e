"""Encoders that run elsewhere cannot be exported: there is no TensorFlow graph, nor a reference, of them."""

from __future__ import annotations

from typing import Any

from tfbert_npu.delegate.traces import layers_within


def refuse_delegated(model: Any) -> None:
    """Make sure that a layer or model computes in TensorFlow, and everything in it.

    Raises:
        ValueError: An encoder in it is delegated.
    """
    for layer in layers_within(model):
        if getattr(layer, "delegation", None) is not None:
            within = "" if layer is model else f" in {model.name}"
            raise ValueError(
                f"{layer.name}{within} runs on {layer.runs_on}, not in TensorFlow; call .undelegate() first"
            )
