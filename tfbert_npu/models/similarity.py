"""An encoder that learns sentence vectors: its pooling and the losses, as sentence-transformers has them."""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import keras
from keras import ops

from tfbert_npu.config import BertConfig
from tfbert_npu.heads import ENCODER
from tfbert_npu.models.encoder import BertEncoder
from tfbert_npu.models.head import BertHead, flat

POOLINGS = ("cls", "max", "mean", "mean_sqrt_len_tokens")
_LEAST = -1e9  # a score whose softmax is 0


class SimilarityLoss(keras.losses.Loss):
    """The loss of the vectors [B, texts, H] of pairs or triplets.

    With `scored`, labels are wanted cosines [B], and the loss is the squared error of the pair's cosine
    (CosineSimilarityLoss). Without, the first text is to be nearer to the second than to all other texts of
    the batch, the third ones included (MultipleNegativesRankingLoss); labels are numbers of the texts, the
    same for the same text [B, texts], so that a copy of what a text belongs to does not count against it.

    Args:
        scored: Whether the labels are cosines.
        dimensions: The loss is summed over vectors cut to each of these lengths (MatryoshkaLoss); empty: all
            of the vector.
        scale: Of the cosines, where texts are ranked.
    """

    def __init__(self, scored: bool, dimensions: Sequence[int] = (), scale: float = 20.0) -> None:
        super().__init__(name="similarity")
        self.scored, self.dimensions, self.scale = scored, tuple(dimensions), scale

    def call(self, y_true: Any, y_pred: Any) -> Any:
        """The loss of each row [B]."""
        one = self._scored if self.scored else self._ranked
        cut = [y_pred[..., :size] for size in self.dimensions] or [y_pred]
        return sum(one(y_true, ops.normalize(vectors, axis=-1)) for vectors in cut)

    def _scored(self, wanted: Any, vectors: Any) -> Any:
        found = ops.sum(vectors[:, 0] * vectors[:, 1], axis=-1)
        return ops.square(found - ops.reshape(wanted, (-1,)))

    def _ranked(self, texts: Any, vectors: Any) -> Any:
        rows = ops.shape(vectors)[0]
        others = flat(ops.transpose(vectors[:, 1:], (1, 0, 2)))  # all second texts, then all third ones
        scores = self.scale * ops.matmul(vectors[:, 0], ops.transpose(others))
        numbers = ops.reshape(ops.transpose(texts[:, 1:]), (1, -1))
        own = ops.arange(rows)[:, None] == ops.arange(ops.shape(others)[0])[None]
        # What belongs to the same first text in another row, and copies of what belongs to it in this one.
        friends = ops.equal(texts[:, :1], ops.transpose(texts[:, :1]))
        beyond = ops.zeros((rows, ops.shape(others)[0] - rows), "bool")
        same = ops.logical_or(ops.equal(numbers, texts[:, 1:2]), ops.concatenate([friends, beyond], axis=1))
        scores = ops.where(ops.logical_and(same, ops.logical_not(own)), _LEAST, scores)
        return ops.logsumexp(scores, axis=-1) - ops.sum(ops.where(own, scores, 0.0), axis=-1)


class BertForSimilarity(BertHead):
    """Sentence vectors of texts that belong together.

    Call with inputs [B, texts, S]; gives vectors [B, texts, H]. It adds no weights: what is saved is the
    encoder.

    Args:
        encoder: See `BertHead`.
        pooling: How hidden states become a vector: of `POOLINGS`, concatenated.
        loss: What it learns.
        **kwargs: See `BertHead`.

    Raises:
        ValueError: The loss asks for more dimensions than there are.
    """

    spec = ENCODER

    def __init__(
        self,
        encoder: BertEncoder | BertConfig | Mapping[str, Any],
        *,
        pooling: Sequence[str] = ("mean",),
        loss: SimilarityLoss | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(encoder, **kwargs)
        self.pooling, self.similarity_loss = tuple(pooling), loss or SimilarityLoss(scored=False)
        width, longest = self.width, max(self.similarity_loss.dimensions, default=1)
        if longest > width:
            raise ValueError(f"a dimension is {longest}, but the vectors have {width}; choose smaller ones")
        if self.encoder.pooler is not None:  # kept as it is for the heads that read it
            self.encoder.pooler.trainable = False

    @classmethod
    def from_pretrained(cls, dir_or_repo: str | os.PathLike[str], **kwargs: Any) -> Any:
        """The encoder of any checkpoint, with its pooler if it has one; arguments are those of the class."""
        own = {name: kwargs.pop(name) for name in ("pooling", "loss") if name in kwargs}
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", ".*holds no pooler", UserWarning)
            return cls(BertEncoder.from_pretrained(dir_or_repo, mlm=False, **kwargs), **own)

    @property
    def width(self) -> int:
        """Length of a vector."""
        return self.config.hidden_size * len(self.pooling)

    def save_pretrained(self, directory: str | os.PathLike[str]) -> None:
        """Write the encoder."""
        self.encoder.save_pretrained(directory)

    def _checked(self, inputs: Any) -> dict[str, Any]:
        return dict(inputs)

    def call(self, inputs: Mapping[str, Any], training: bool | None = None) -> Any:
        """Embed every text."""
        texts = ops.shape(inputs["input_word_ids"])[1]
        rows = {name: flat(tensor) for name, tensor in inputs.items()}
        states = self.encoder(rows, training=training)["sequence_output"]
        vectors = pool(states, rows["input_mask"], self.pooling)
        return ops.reshape(vectors, (-1, texts, self.width))

    def default_loss(self) -> SimilarityLoss:
        """That of the constructor."""
        return self.similarity_loss


def pool(states: Any, mask: Any, modes: Sequence[str]) -> Any:
    """Hidden states [B, S, H] to vectors [B, H * len(modes)], in the graph."""
    kept = ops.cast(mask, states.dtype)[..., None]
    count = ops.sum(kept, axis=1)
    found = {
        "cls": lambda: states[:, 0],
        "max": lambda: ops.max(states + (1 - kept) * _LEAST, axis=1),
        "mean": lambda: ops.sum(states * kept, axis=1) / count,
        "mean_sqrt_len_tokens": lambda: ops.sum(states * kept, axis=1) / ops.sqrt(count),
    }
    return ops.concatenate([found[mode]() for mode in modes], axis=-1)
