"""Batches of features: shuffled, grouped by length and padded, the same ones for the same seed.

The batches of an epoch are a function of the data, the seed and the epoch's number alone. That is what lets
a killed training go on at the very batch at which it stopped.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np

from tfbert_npu.train.features import IGNORED, Feature

Batch = tuple[dict[str, np.ndarray], Any, np.ndarray | None]
"""Inputs, labels (an array, or a dict of them by output) and sample weights, as `fit` takes them."""


@dataclass(frozen=True)
class BatchOptions:
    """How features become batches.

    Attributes:
        batch_size: Rows of a batch; the last one of an epoch may have fewer.
        seq_length: Longest row in tokens.
        pad_to: A batch is as long as its longest row, rounded up to a multiple of this; None: always
            `seq_length`, which XLA needs and an NPU's fixed shapes resemble.
        shuffle: Rows are drawn at random from a buffer of this many; 0 keeps the file's order.
        group: Rows of like length go together, chosen from this many batches at a time; 1 does not group.
        seed: Of everything random here.
        drop_remainder: Leave out a last batch with fewer rows (for data-parallel training).
    """

    batch_size: int = 32
    seq_length: int = 128
    pad_to: int | None = 8
    shuffle: int = 10_000
    group: int = 32
    seed: int = 0
    drop_remainder: bool = False

    def __post_init__(self) -> None:
        for name in ("batch_size", "seq_length", "group"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.shuffle < 0 or (self.pad_to is not None and self.pad_to < 1):
            raise ValueError("shuffle must not be negative, and pad_to must be at least 1 or None")


class Batches:
    """The batches of each epoch.

    Args:
        features: Gives a new iterator over all features at every call.
        options: See `BatchOptions`.
        pad_id: Id of `[PAD]`.
        cache: Keep the features in memory; without it they are made again in every epoch, for data larger
            than memory.
        class_weights: Weight of each class's rows, or tokens, in the loss; [number of classes].

    Attributes:
        rows: Number of features.
        digest: A hash of the features in their order, and of the class weights.

    Raises:
        ValueError: There is no feature, or no label that a loss would look at.
    """

    def __init__(
        self,
        features: Callable[[], Iterable[Feature]],
        options: BatchOptions,
        *,
        pad_id: int = 0,
        cache: bool = True,
        class_weights: Sequence[float] | None = None,
    ) -> None:
        self.options = options
        self.pad_id = pad_id
        self.class_weights = None if class_weights is None else np.asarray(class_weights, np.float32)
        self._features = features
        if cache:
            kept = list(features())
            self._features = lambda: kept
        self.rows = 0
        labeled = False
        digest = hashlib.sha256(repr(class_weights).encode())
        for feature in self.features_of(0):
            digest.update(repr((feature.ids, feature.types, feature.label)).encode())
            self.rows += 1
            labeled = labeled or _is_labelled(feature.label)
        self.digest = digest.hexdigest()
        if not self.rows:
            raise ValueError("the data set is empty: it holds not a single example to train on")
        if not labeled:
            raise ValueError(f"every label of the data set is {IGNORED} (none), so there is nothing to learn")
        if options.drop_remainder and self.rows < options.batch_size:
            raise ValueError(
                f"the data set has {self.rows} rows, less than one batch of {options.batch_size}; "
                "choose a smaller batch_size"
            )

    def __len__(self) -> int:
        """Number of batches of an epoch."""
        if self.options.drop_remainder:
            return self.rows // self.options.batch_size
        return -(-self.rows // self.options.batch_size)

    def features_of(self, epoch: int) -> Iterable[Feature]:
        """The features of an epoch, in the file's order; as many in every epoch."""
        return self._features()

    def epoch(self, number: int, skip: int = 0) -> Iterator[Batch]:
        """The batches of epoch `number`, counted from 0, without the first `skip`."""
        for batch in islice(self._grouped(number), skip, None):
            yield self.collate(batch)

    def _grouped(self, epoch: int) -> Iterator[list[Feature]]:
        options = self.options
        random = np.random.default_rng([options.seed, epoch])
        stream = iter(self.features_of(epoch))
        if options.shuffle:
            stream = _shuffled(stream, options.shuffle, random)
        while chunk := list(islice(stream, options.batch_size * options.group)):
            if options.group > 1:
                chunk.sort(key=lambda feature: feature.length)
            batches = [
                chunk[first : first + options.batch_size]
                for first in range(0, len(chunk), options.batch_size)
            ]
            # A short batch stays at the end, or the number of batches would depend on the order.
            short = batches.pop() if len(batches[-1]) < options.batch_size else None
            if options.shuffle:
                random.shuffle(batches)
            yield from batches
            if short is not None and not options.drop_remainder:
                yield short

    def collate(self, features: Sequence[Feature]) -> Batch:
        """Pad features to one length.

        Returns:
            `input_word_ids`, `input_mask` and `input_type_ids`, int32 [B, S] (or [B, choices, S]); labels;
            sample weights of the labels' shape, or None.
        """
        length = self.options.seq_length
        if self.options.pad_to is not None:
            longest = max(feature.length for feature in features)
            length = min(length, -(-longest // self.options.pad_to) * self.options.pad_to)
        shape: tuple[int, ...] = (len(features), length)
        choices = isinstance(features[0].ids[0], list)
        if choices:
            shape = (len(features), len(features[0].ids), length)
        word_ids = np.full(shape, self.pad_id, np.int32)
        mask, type_ids = np.zeros(shape, np.int32), np.zeros(shape, np.int32)
        for row, feature in enumerate(features):
            rows = zip(feature.ids, feature.types, strict=True) if choices else [(feature.ids, feature.types)]
            for column, (ids, types) in enumerate(rows):
                place = (row, column) if choices else (row,)
                word_ids[place][: len(ids)] = ids
                mask[place][: len(ids)] = 1
                type_ids[place][: len(ids)] = types
        labels = _labels([feature.label for feature in features], length)
        inputs = {"input_word_ids": word_ids, "input_mask": mask, "input_type_ids": type_ids}
        return inputs, labels, self._weights(labels)

    def _weights(self, labels: Any) -> np.ndarray | None:
        if self.class_weights is None:
            return None
        counted = labels != IGNORED
        return np.where(counted, self.class_weights[np.where(counted, labels, 0)], 0).astype(np.float32)


def balanced_weights(counts: Sequence[int]) -> list[float]:
    """Weights that give every class the same part in the loss: rows / (classes x rows of the class).

    scikit-learn's `class_weight="balanced"`; a class without rows weighs nothing.
    """
    present = sum(1 for count in counts if count)
    return [sum(counts) / (present * count) if count else 0.0 for count in counts]


def _shuffled(
    features: Iterable[Feature], buffer_size: int, random: np.random.Generator
) -> Iterator[Feature]:
    """tf.data's shuffle: fill a buffer, and draw from it at random while the rest flows in."""
    buffer: list[Feature] = []
    for feature in features:
        if len(buffer) < buffer_size:
            buffer.append(feature)
            continue
        drawn = int(random.integers(buffer_size))
        yield buffer[drawn]
        buffer[drawn] = feature
    for index in random.permutation(len(buffer)):
        yield buffer[index]


def _is_labelled(label: Any) -> bool:
    if isinstance(label, list):
        return any(value != IGNORED for value in label)
    if isinstance(label, dict):
        return any(value != IGNORED for value in label.values())
    return label is not None and label != IGNORED


def _labels(labels: Sequence[Any], length: int) -> Any:
    first = labels[0]
    if isinstance(first, dict):
        return {name: np.array([label[name] for label in labels], np.int32) for name in first}
    if isinstance(first, list):
        padded = np.full((len(labels), length), IGNORED, np.int32)
        for row, label in enumerate(labels):
            padded[row, : len(label)] = label
        return padded
    return np.array(labels, np.int32 if isinstance(first, int) else np.float32)
