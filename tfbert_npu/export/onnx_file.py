"""`export_onnx`: a model as one ONNX file, or as an artifact directory for the CPU."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from tfbert_npu._files import replacing
from tfbert_npu.artifact.agreement import Agreement, compare, failures
from tfbert_npu.artifact.directory import check_target, staged
from tfbert_npu.errors import require
from tfbert_npu.export.gate import GateError
from tfbert_npu.export.reference import write_reference
from tfbert_npu.export.source import ExportSource, graph_of, outputs_of, source_of, tensorflow_reference
from tfbert_npu.heads import OutputSpec
from tfbert_npu.onnx.directory import write_onnx_contents
from tfbert_npu.onnx.model import Dim, EmbeddingPlace, GraphOptions
from tfbert_npu.onnx.running import Placing, Rows, random_inputs, run_onnx
from tfbert_npu.onnx.signature import Signature

_ONNX_MIN_COSINE = 0.999999
_REFERENCE_LENGTHS = (16, 64, 128)


def export_onnx(
    model: Any,
    path: str | os.PathLike[str],
    outputs: Sequence[str] | None = None,
    *,
    head: str | None = None,
    batch: Dim = "batch",
    length: Dim = "length",
    embeddings: EmbeddingPlace = "inside",
    masked_positions: Dim | None = None,
    packed: bool = False,
    check: bool = True,
    tokenizer: str | os.PathLike[str] | None = None,
    overwrite: bool = False,
) -> Path:
    """Write a model as ONNX (opset 17), straight from its weights.

    The graph is in the form that rknn-toolkit2 fuses: LayerNormalization as one operator, the exact GELU
    spelled out, int32 ids, a finite mask constant, outputs in a fixed order.

    Args:
        model: A `BertEncoder`, its `.mlm`, one of the `BertFor...` models, or the directory or hub repository
            of a checkpoint.
        path: A name that ends in `.onnx`: the file. Any other: an artifact directory with `model.onnx`,
            configuration, manifest and vocabulary, which `load_npu(path, backend="onnx")` takes, and every
            command that takes an artifact; no toolchain is needed. Either is written whole or not at all.
        outputs: Names of outputs in their order: the head's logits, `"pooled_output"`, `"sequence_output"`,
            `"encoder_outputs"` (one output per layer). By default the head's logits, or pooled and sequence
            output of an encoder.
        head: What stands on the encoder, for a checkpoint whose `config.json` does not say.
        batch: Batch size, or the name of a dynamic one.
        length: Sequence length, or the name of a dynamic one.
        embeddings: `"host"` leaves the embedding look-up out; see `artifact.embeddings`.
        masked_positions: Give `mlm_logits` at that many positions [B, P] instead of everywhere.
        packed: Several texts in each row, as in `export_rknn`; the embeddings are summed on the host.
        check: Compare onnxruntime's outputs with TensorFlow's where both are installed.
        tokenizer: For a directory: one with `vocab.txt` or `tokenizer.json`; by default the checkpoint's.
        overwrite: Replace a directory that is not empty. A file is always replaced.

    Raises:
        ValueError: An option is unknown or impossible.
        GateError: The file's outputs are not the model's.

    Example:
        >>> import tempfile
        >>> from tfbert_npu import BertConfig, BertEncoder, export_onnx
        >>> sizes = dict(hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8)
        >>> encoder = BertEncoder(BertConfig(vocab_size=30, **sizes))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     export_onnx(encoder, f"{folder}/tiny.onnx").name
        'tiny.onnx'
    """
    require("onnx", "export")
    import onnx

    target = Path(path).expanduser()
    as_file = target.suffix == ".onnx" and not target.is_dir()
    if not as_file:
        check_target(target, overwrite=overwrite)
        if not (isinstance(batch, str) and isinstance(length, str)) or isinstance(masked_positions, str):
            raise ValueError(
                "an artifact directory takes any batch and length, and a fixed number of masked positions; "
                "give a path that ends in .onnx for another file"
            )
    source = source_of(model, head=head, tokenizer=tokenizer)
    options = GraphOptions(
        outputs=None if outputs is None else tuple(outputs),
        batch=batch,
        length=length,
        embeddings="host" if packed else embeddings,
        masked_positions=masked_positions,
        packed=packed,
    )
    graph = graph_of(source, options)
    check = check and masked_positions is None
    if as_file:
        with replacing(target) as temporary:
            onnx.save(graph, temporary)
            if check:
                _check(temporary, source, options)
        return target
    with staged(target.absolute(), overwrite=overwrite) as staging:
        onnx.save(graph, staging / "model.onnx")
        source = tensorflow_reference(source)
        if source.reference is not None or find_spec("onnxruntime") is not None:
            lengths = [min(length, source.config.max_position_embeddings) for length in _REFERENCE_LENGTHS]
            positions = masked_positions if isinstance(masked_positions, int) else None
            write_reference(staging, source, lengths, options.outputs, positions, options)
        found = _check(staging / "model.onnx", source, options) if check else {}
        write_onnx_contents(staging, source, Signature.of(graph), options, found)
    return target


def compare_onnx(
    path: str | os.PathLike[str],
    source: ExportSource,
    specs: Sequence[OutputSpec],
    inputs: Sequence[Mapping[str, np.ndarray]],
    options: Placing,
) -> dict[str, Agreement]:
    """Agreement of an ONNX file with the source's reference, the worst over all batches."""
    assert source.reference is not None
    rows = Rows(source.state, inputs, options)
    expected = [source.reference(batch) for batch in inputs]
    got = rows.outputs(run_onnx(path, rows.fed))
    return compare(got, expected, [batch["input_mask"] for batch in inputs], specs)


def _check(path: Path, source: ExportSource, options: GraphOptions) -> dict[str, Agreement]:
    """The file's agreement with TensorFlow; nothing where it or onnxruntime is not installed."""
    try:
        require("onnxruntime", "onnx")
    except ImportError:
        return {}
    source = tensorflow_reference(source)
    if source.reference is None:
        return {}
    specs = outputs_of(source, options.outputs, options.masked_positions is not None)
    shape = (
        options.batch if isinstance(options.batch, int) else 2,
        options.length if isinstance(options.length, int) else min(24, source.config.max_position_embeddings),
    )
    inputs = random_inputs(source.config, shape, runs=2)
    # On the host the tables are in float16, as on the NPU; the rest of the graph is the same.
    least = _ONNX_MIN_COSINE if options.embeddings == "inside" else 0.99999
    found = compare_onnx(path, source, specs, inputs, options)
    wrong = failures(found, least)
    if wrong:
        raise GateError(f"the ONNX file is not the model: {'; '.join(wrong)}", "please report this")
    return found
