from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tfbert_npu import BertConfig


@pytest.fixture
def config() -> BertConfig:
    """A small architecture in which every size differs from every other."""
    return BertConfig(
        vocab_size=97,
        hidden_size=24,
        num_hidden_layers=3,
        num_attention_heads=4,
        intermediate_size=40,
        max_position_embeddings=32,
        type_vocab_size=2,
    )


@pytest.fixture
def batch(config: BertConfig) -> dict[str, np.ndarray]:
    """Four sequences of 16 tokens, padded to different lengths, the last a pair of texts."""
    return make_batch(config)


def make_batch(config: BertConfig, lengths: Any = (16, 9, 3, 12), width: int = 16) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(7)
    mask = (np.arange(width) < np.array(lengths)[:, None]).astype(np.int32)
    types = np.zeros_like(mask)
    types[-1, 5 : lengths[-1]] = 1
    ids = rng.integers(1, config.vocab_size, mask.shape, dtype=np.int32) * mask
    return {"input_word_ids": ids, "input_mask": mask, "input_type_ids": types}
