"""Whether an artefact was made of the weights that an encoder holds."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tfbert_npu.artifact.hashing import state_sha256
from tfbert_npu.artifact.manifest import Manifest
from tfbert_npu.config import BertConfig
from tfbert_npu.delegate.settings import Settings
from tfbert_npu.errors import ArtifactError

_SAME = ("model_type", "vocab_size", "hidden_size", "num_hidden_layers", "max_position_embeddings")


def check_source(encoder: Any, settings: Settings) -> None:
    """Make sure that an artefact was exported from the weights that the encoder holds now.

    Raises:
        ArtifactError: It was not, and `allow_other_weights` is not set; or it is of another architecture.
    """
    directory = Path(settings.artifact_dir)
    manifest = Manifest.read(directory)
    config = BertConfig.from_json(directory / "config.json", source="huggingface")
    for name in _SAME:
        theirs, ours = getattr(config, name), getattr(encoder.config, name)
        if theirs != ours:
            raise ArtifactError(
                f"{directory} has {name}={theirs} and {encoder.name} has {ours}; export this encoder"
            )
    if settings.allow_other_weights or manifest.source_sha256 in _hashes(encoder):
        return
    raise ArtifactError(
        f"{directory} was exported from other weights than {encoder.name} holds now; export it again, or "
        "pass allow_other_weights=True to run those of the artefact"
    )


def _hashes(encoder: Any) -> Iterator[str]:
    """Hashes under which this encoder may have been exported: alone, or with its masked language model head.

    Version 0.1.0 hashed that head's tensors also where the encoder was exported without it.
    """
    from tfbert_npu.weights.variables import extract, rows_of

    rows = rows_of(encoder)
    alone = [row for row in rows if not row.attribute.startswith("mlm_head.")]
    state = extract(encoder, rows)
    yield state_sha256({row.name: state[row.name] for row in alone})
    if len(alone) < len(rows):
        yield state_sha256(state)
