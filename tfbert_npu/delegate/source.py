"""Whether an artifact was made of the weights that an encoder holds."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tfbert_npu.artifact.hashing import state_sha256
from tfbert_npu.checkpoints.variables import extract, rows_of
from tfbert_npu.errors import ArtifactError
from tfbert_npu.runtime.files import Artifact

_SAME = ("model_type", "vocab_size", "hidden_size", "num_hidden_layers", "max_position_embeddings")


def check_source(encoder: Any, artifact: Artifact, *, allow_other_weights: bool) -> None:
    """Make sure that an artifact was exported from the weights that the encoder holds now.

    Args:
        encoder: A `BertEncoder`, built.
        artifact: What it is to run.
        allow_other_weights: Look at the architecture only.

    Raises:
        ArtifactError: It was not, and `allow_other_weights` is not set; or it is of another architecture.
    """
    directory, source_sha256 = artifact.directory, artifact.manifest.source_sha256
    for name in _SAME:
        theirs, ours = getattr(artifact.config, name), getattr(encoder.config, name)
        if theirs != ours:
            raise ArtifactError(
                f"{directory} has {name}={theirs} and {encoder.name} has {ours}", "export this encoder"
            )
    if allow_other_weights:
        return
    if not source_sha256:
        raise ArtifactError(
            f"{directory} does not say which weights it was made from, as rk-transformers' directories do "
            f"not",
            f"export {encoder.name} with export_rknn, or pass allow_other_weights=True to run the file's",
        )
    if source_sha256 in _hashes(encoder):
        return
    raise ArtifactError(
        f"{directory} was exported from other weights than {encoder.name} holds now",
        "export it again, or pass allow_other_weights=True to run those of the artifact",
    )


def _hashes(encoder: Any) -> Iterator[str]:
    """Hashes under which this encoder may have been exported: alone, or with its masked language model head.

    Version 0.1.0 hashed that head's tensors also where the encoder was exported without it.
    """
    rows = rows_of(encoder)
    alone = [row for row in rows if not row.attribute.startswith("mlm_head.")]
    state = extract(encoder, rows)
    yield state_sha256({row.name: state[row.name] for row in alone})
    if len(alone) < len(rows):
        yield state_sha256(state)
