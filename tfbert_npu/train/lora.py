"""Low-rank adaptation: train small updates of some matrices, and merge them before export."""

from __future__ import annotations

from typing import Any

from tfbert_npu.checkpoints.names import head_rows
from tfbert_npu.checkpoints.variables import assign, extract, rows_of


def add_lora(model: Any, rank: int, alpha: float | None = None) -> None:
    """Freeze the encoder and add trainable low-rank updates to its query and value projections.

    The update of a matrix is `alpha / rank x A B` with A [in, rank] random and B [rank, out] zero, so that
    the model computes the same as before (Hu et al. 2021). The head stays trainable.

    Args:
        model: A `BertHead`; not compiled, or to be compiled again.
        rank: Rank of the updates.
        alpha: Their scale; by default twice the rank.

    Raises:
        ValueError: The rank is not positive or not below the matrices' size.
    """
    if not 1 <= rank < model.config.hidden_size:
        raise ValueError(f"the rank must be from 1 to {model.config.hidden_size - 1}, got {rank}")
    model.build()
    for variable in model.encoder.trainable_variables:
        variable.trainable = False
    for layer in model.encoder.layers:
        for projection in (layer.attention.query, layer.attention.value):
            projection.enable_lora(rank, lora_alpha=2 * rank if alpha is None else alpha)


def merge_lora(model: Any) -> Any:
    """A head of the same class whose matrices include the updates: an ordinary model to save and export."""
    config = model.get_config()
    encoder = type(model.encoder).from_config(model.encoder.get_config())
    merged = type(model)(encoder, labels=config["labels"], problem_type=config["problem_type"])
    merged.build()
    # A layer's `kernel` is the sum of the frozen matrix and its update.
    rows = rows_of(merged.encoder)
    assign(merged.encoder, rows, extract(model.encoder, rows))
    own_rows = [row for part in model.parts for row in head_rows(part)]
    assign(merged, own_rows, extract(model, own_rows))
    return merged
