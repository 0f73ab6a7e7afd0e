"""Small random models by transformers: somebody else's arithmetic to compare with."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import transformers

from tfbert_npu.artifact.agreement import Agreement, compare
from tfbert_npu.checkpoints.state import State, to_state
from tfbert_npu.config import BertConfig
from tfbert_npu.heads import ENCODER_OUTPUTS

SMALL = {
    "vocab_size": 97,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "max_position_embeddings": 40,
    "initializer_range": 0.2,
}


def bert(class_name: str, **changes: Any) -> tuple[BertConfig, State, Any]:
    """A random BERT of transformers: its configuration and weights as ours, and the model itself."""
    config = transformers.BertConfig(**{**SMALL, **changes})
    return _ours(getattr(transformers, class_name), config)


def distilbert(class_name: str, **changes: Any) -> tuple[BertConfig, State, Any]:
    """A random DistilBERT of transformers."""
    renamed = {
        "vocab_size": 97,
        "dim": 32,
        "n_layers": 2,
        "n_heads": 4,
        "hidden_dim": 48,
        "max_position_embeddings": 40,
        "initializer_range": 0.2,
    }
    config = transformers.DistilBertConfig(**{**renamed, **changes})
    return _ours(getattr(transformers, class_name), config)


def _ours(cls: Any, config: Any) -> tuple[BertConfig, State, Any]:
    torch.manual_seed(7)
    config._attn_implementation = "eager"
    model = cls(config).eval()
    with torch.no_grad():  # fresh biases and gains are 0 and 1, which hide a missing one
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter.add_(0.1 * torch.randn_like(parameter))
    ours = BertConfig._from_huggingface(config.to_dict())
    tensors = {name: value.numpy() for name, value in model.state_dict().items()}
    return ours, to_state(tensors, ours), model


def padded_inputs(
    config: BertConfig, batch: int = 3, length: int = 11, seed: int = 0
) -> dict[str, np.ndarray]:
    """Random ids with padding of different lengths, and two token types."""
    rng = np.random.default_rng(seed)
    ids = rng.integers(1, config.vocab_size, (batch, length))
    lengths = rng.integers(2, length + 1, batch)
    mask = (np.arange(length) < lengths[:, None]).astype(np.int32)
    types = (np.arange(length) >= lengths[:, None] // 2).astype(np.int32) * mask
    return {
        "input_word_ids": (ids * mask).astype(np.int32),
        "input_mask": mask,
        "input_type_ids": types,
    }


def run_torch(model: Any, inputs: dict[str, np.ndarray], **extra: Any) -> Any:
    """Outputs of transformers' model for inputs under TF-Hub's names."""
    arguments = {
        "input_ids": torch.from_numpy(inputs["input_word_ids"]).long(),
        "attention_mask": torch.from_numpy(inputs["input_mask"]).long(),
    }
    if model.config.model_type == "bert":
        arguments["token_type_ids"] = torch.from_numpy(inputs["input_type_ids"]).long()
    with torch.no_grad():
        return model(**arguments, **extra)


def agreement(got: Any, expected: Any, mask: np.ndarray, name: str = "sequence_output") -> Agreement:
    """How close one of the encoder's outputs is to its reference."""
    spec = next(spec for spec in ENCODER_OUTPUTS if spec.name == name)
    return compare([{name: got}], [{name: expected}], [mask], [spec])[name]
