"""Summed embeddings and attention bias on the host, for files compiled with `embeddings="host"`."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from tfbert_npu._files import replacing
from tfbert_npu.errors import ArtifactError

EMBEDDINGS = "embeddings.safetensors"
_WORDS = "embeddings.word_embeddings.weight"
_POSITIONS = "embeddings.position_embeddings.weight"
_TYPES = "embeddings.token_type_embeddings.weight"
_POOLER = ("pooler.dense.weight", "pooler.dense.bias")

MASK_BIAS = -1e4
"""Added to the attention scores of padding: exp(-1e4) is 0 in float16, and -1e4 x 0 is finite there, which
-1e5 is not (it overflows to -inf, and -inf x 0 is NaN on the NPU)."""


@dataclass(frozen=True)
class HostEmbeddings:
    """The embedding tables; float16 as on the NPU, summed in float32."""

    words: np.ndarray
    """[vocab_size, H]"""
    positions: np.ndarray
    """[max_position_embeddings, H]"""
    types: np.ndarray | None
    """[type_vocab_size, H], or None for DistilBERT."""
    pooler: tuple[np.ndarray, np.ndarray] | None = None
    """float32 weight [H, H] and bias [H] of the pooler, for packed texts; None: there is none."""

    @classmethod
    def from_state(cls, state: Mapping[str, np.ndarray]) -> HostEmbeddings:
        """Take the tables out of a state (see `weights.names`)."""
        types = state.get(_TYPES)
        weight, bias = (state.get(name) for name in _POOLER)
        return cls(
            state[_WORDS].astype(np.float16),
            state[_POSITIONS].astype(np.float16),
            None if types is None else types.astype(np.float16),
            None if weight is None or bias is None else (weight, bias),
        )

    @classmethod
    def load(cls, directory: str | os.PathLike[str]) -> HostEmbeddings:
        """Read `embeddings.safetensors` of an artifact directory.

        Raises:
            ArtifactError: The file is damaged or does not hold the tables.
        """
        path = Path(directory) / EMBEDDINGS
        try:
            tables = load_file(path)
            pooler = (tables[_POOLER[0]], tables[_POOLER[1]]) if _POOLER[0] in tables else None
            return cls(tables[_WORDS], tables[_POSITIONS], tables.get(_TYPES), pooler)
        except (SafetensorError, KeyError) as error:
            raise ArtifactError(f"{path} is damaged ({error})", "copy or export it again") from error

    def save(self, directory: str | os.PathLike[str], *, pooler: bool = False) -> None:
        """Write `embeddings.safetensors`, with the pooler if packed texts need it."""
        tables = {_WORDS: self.words, _POSITIONS: self.positions}
        if self.types is not None:
            tables[_TYPES] = self.types
        if pooler and self.pooler is not None:
            tables |= dict(zip(_POOLER, map(np.ascontiguousarray, self.pooler), strict=True))
        with replacing(Path(directory) / EMBEDDINGS) as temporary:
            save_file(tables, temporary)

    def __call__(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Turn ids into what the compiled file takes.

        Args:
            inputs: `input_word_ids`, `input_mask` and, where there are token types, `input_type_ids`; int32
                [B, S].

        Returns:
            `embeddings` float32 [B, S, H] and `attention_bias` float32 [B, S], 0 at tokens and
            `MASK_BIAS` at padding.

        Raises:
            ValueError: An id is outside of its table, or S is more than the model's positions.
        """
        length = inputs["input_word_ids"].shape[1]
        if length > len(self.positions):
            raise ValueError(f"{length} tokens are more than the model's {len(self.positions)} positions")
        bias = np.where(inputs["input_mask"] == 0, np.float32(MASK_BIAS), np.float32(0))
        return {"embeddings": self.summed(inputs, slice(length)), "attention_bias": bias}

    def summed(self, inputs: Mapping[str, np.ndarray], positions: slice | np.ndarray) -> np.ndarray:
        """The sum of the tables' rows, float32 [B, S, H]; `positions` are those of the S places.

        Raises:
            ValueError: An id is outside of its table.
        """
        total = _rows(self.words, inputs["input_word_ids"], "input_word_ids")
        if self.types is not None:
            total += _rows(self.types, inputs["input_type_ids"], "input_type_ids")
        total += self.positions[positions].astype(np.float32)
        return total

    def pooled(self, first: np.ndarray) -> np.ndarray:
        """The pooler's output [B, H] of the first tokens' hidden states [B, H]; without a pooler these."""
        if self.pooler is None:
            return first
        weight, bias = self.pooler
        return np.tanh(first @ weight.T + bias)


def _rows(table: np.ndarray, ids: np.ndarray, name: str) -> np.ndarray:
    if ids.size and (ids.min() < 0 or ids.max() >= len(table)):
        raise ValueError(f"{name} must be from 0 to {len(table) - 1}, got {ids.min()} to {ids.max()}")
    return table[ids].astype(np.float32)
