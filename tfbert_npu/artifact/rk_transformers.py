"""Directories of rk-transformers: `.rknn` files and Hugging Face's config.json, without a manifest.

What a manifest would say is read out of the file itself. Who made it, from which weights and with what
result, it does not say; nothing here is verified beyond that.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tfbert_npu.artifact.hashing import sha256_of
from tfbert_npu.artifact.manifest import Manifest, ModelFile, TensorSpec
from tfbert_npu.artifact.rknn_file import RknnFile, read_rknn
from tfbert_npu.errors import ArtifactError
from tfbert_npu.paths import file_inside, list_files

HF_INPUTS = {
    "input_word_ids": "input_ids",
    "input_mask": "attention_mask",
    "input_type_ids": "token_type_ids",
}
"""Our inputs, which are TF-Hub's, under Hugging Face's names."""

_OURS = {
    **{theirs: ours for ours, theirs in HF_INPUTS.items()},
    "last_hidden_state": "sequence_output",
    "pooler_output": "pooled_output",
    "token_embeddings": "sequence_output",  # sentence-transformers' name
}
_NEEDED = ("input_word_ids", "input_mask")
_PER_TOKEN = (*HF_INPUTS, "start_logits", "end_logits")
"""Tensors of rank 2 that are [batch, length]; others, such as `pooled_output`, are [batch, size]."""
_INTEGERS = ("int16", "int32", "int64")


def our_name(name: str) -> str:
    """A tensor's name, ours where it has Hugging Face's."""
    return _OURS.get(name, name)


def rknn_files(directory: Path) -> tuple[str, ...]:
    """The `.rknn` files of a directory and its folders, as POSIX paths."""
    return tuple(sorted(name for name in list_files(directory) if name.endswith(".rknn")))


def manifest_of(directory: Path, file: str | None = None) -> Manifest:
    """The manifest that a directory of rk-transformers would have.

    Its `source_sha256` is empty: nobody can tell which weights the file was made from.

    Args:
        directory: Where `config.json` is.
        file: Which of its `.rknn` files, relative to it; needed where there are several.

    Raises:
        FileNotFoundError: There is no such file.
        ArtifactError: There are several and none is named; or the file is damaged, or not of a BERT whose
            texts can be padded.
    """
    if file is None:
        names = rknn_files(directory)
        if len(names) != 1:
            raise ArtifactError(
                f"{directory} holds {len(names)} .rknn files and no manifest.json",
                f"name the one to run, --file or file=: {', '.join(names)}",
            )
        (file,) = names
    path = file_inside(directory, file)
    if not path.is_file():
        raise FileNotFoundError(
            f"{path} is missing; the directory holds {', '.join(rknn_files(directory)) or 'no .rknn file'}"
        )
    header = read_rknn(path)
    inputs = _inputs(header)
    model = ModelFile(
        path=file,
        kind="rknn",
        sha256=sha256_of(path),
        size=header.size,
        shapes=_shapes(header),
        inputs=inputs,
        # The vendor's runtime converts every output to float32, whatever the file declares.
        outputs=tuple(_spec(our_name(spec.name), "float32", spec.shape) for spec in header.outputs),
        platform=header.platforms[0],
        toolkit_version=header.toolkit_version,
    )
    outputs = {spec.name for spec in model.outputs}
    return Manifest(
        head="encoder" if outputs <= {"sequence_output", "pooled_output"} else "unknown",
        embeddings="inside",
        layout="dynamic" if len(model.shapes) > 1 else "static",
        precision="unknown",
        models=(model,),
        support=(),
        source_sha256="",
        created_by="rk-transformers",
    )


def _inputs(header: RknnFile) -> tuple[TensorSpec, ...]:
    inputs = tuple(_spec(our_name(spec.name), spec.dtype, spec.shape) for spec in header.inputs)
    names = [spec.name for spec in inputs]
    strange = [spec.name for spec in inputs if spec.name not in HF_INPUTS]
    if strange or not set(_NEEDED) <= set(names):
        raise ArtifactError(
            f"{header.path} takes {', '.join(spec.name for spec in header.inputs)}, and BERT's inputs are "
            f"{', '.join(HF_INPUTS.values())}, without the first two of which texts cannot be padded",
            "export the model with export_rknn",
        )
    for spec in inputs:
        if spec.dtype not in _INTEGERS or len(spec.shape) != 2:
            raise ArtifactError(
                f"{header.path} takes {HF_INPUTS[spec.name]} as {spec.dtype or 'an unknown dtype'} of rank "
                f"{len(spec.shape)} where ids are integers [batch, length]",
                "export the model with export_rknn",
            )
    return inputs


def _shapes(header: RknnFile) -> tuple[tuple[int, int], ...]:
    shapes = []
    for sizes in header.input_shapes:
        if len(set(sizes)) != 1 or len(sizes[0]) != 2:
            raise ArtifactError(
                f"{header.path} takes inputs of the shapes {sizes} where BERT's are alike, [batch, length]",
                "export the model with export_rknn",
            )
        shapes.append((sizes[0][0], sizes[0][1]))
    return tuple(shapes)


def _spec(name: str, dtype: str, shape: Sequence[int]) -> TensorSpec:
    """A spec with -1 for batch and length."""
    per_token = len(shape) > 2 or name in _PER_TOKEN
    free = 2 if per_token else 1
    return TensorSpec(name, dtype, (*(-1,) * free, *shape[free:]))
