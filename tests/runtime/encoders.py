"""A small random encoder of ours and an artifact of it that the double and onnxruntime compute."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.runtime.artifacts import CONFIG, SHAPES, write_artifact
from tfbert_npu import BertConfig, BertEncoder
from tfbert_npu.artifact.embeddings import HostEmbeddings
from tfbert_npu.export.source import source_of
from tfbert_npu.onnx.model import GraphOptions, write_graph
from tfbert_npu.onnx.signature import Signature

SMALL = {**CONFIG, "vocab_size": 97}


def small_encoder(seed: int = 0, sizes: Mapping[str, int] | None = None, **options: Any) -> BertEncoder:
    import keras

    keras.utils.set_random_seed(seed)
    encoder = BertEncoder(BertConfig(**{**SMALL, "initializer_range": 0.3, **(sizes or {})}), **options)
    encoder.build()
    return encoder


def export_small(model: Any, directory: Path, head: str | None = None, **options: Any) -> Path:
    """What `export_rknn` would write, without the toolchain."""
    source = source_of(model, head=head)
    graph = write_graph(source.config, source.state, source.head, GraphOptions(**options))
    signature = Signature.of(graph)
    content = graph.SerializeToString()
    return write_artifact(
        directory,
        shapes=SHAPES,
        payload=content,
        onnx=content,
        config=source.config.to_huggingface("BertModel"),
        inputs=signature.inputs,
        outputs=signature.outputs,
        head=source.kind,
        source_sha256=source.weights_sha256,
        tables=HostEmbeddings.from_state(source.state) if options.get("embeddings") == "host" else None,
    )
