"""Sentence vectors that are near where texts belong together: the task `similarity`."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tfbert_npu.checkpoints.sentence_options import (
    SENTENCE_FILES,
    SentenceOptions,
    read_sentence_options,
    write_sentence_options,
)
from tfbert_npu.errors import require
from tfbert_npu.heads import ENCODER
from tfbert_npu.models.similarity import POOLINGS, BertForSimilarity, SimilarityLoss
from tfbert_npu.repository import local_directory
from tfbert_npu.tasks.bootstrap import interval_of
from tfbert_npu.tasks.evaluation import Prediction, score
from tfbert_npu.tasks.examples import SimilarExample
from tfbert_npu.tasks.metrics import regression_metrics
from tfbert_npu.tasks.running import call
from tfbert_npu.tasks.sentence_encoder import unit
from tfbert_npu.tasks.similar import read_similar
from tfbert_npu.tasks.text_files import DataError
from tfbert_npu.train.batches import Batches, BatchOptions
from tfbert_npu.train.data_options import DataOptions
from tfbert_npu.train.features import Feature, pack
from tfbert_npu.train.options import TrainOptions
from tfbert_npu.train.tasks import Task


class SimilarityTask(Task[SimilarExample]):
    """Near vectors for pairs, wanted cosines for pairs with scores, or nearer to one text than to another."""

    spec = ENCODER
    monitor = "recall_at_1"

    def __init__(self, data: DataOptions, tokenizer: Any, seq_length: int) -> None:
        super().__init__(data, tokenizer, seq_length)
        self.options = SentenceOptions()
        self.scored: bool | None = None
        self.dimensions: tuple[int, ...] = ()
        self._negatives = False
        self._numbers: dict[str, int] = {}

    @property
    def head(self) -> type[BertForSimilarity]:
        """The Keras class that learns it."""
        return BertForSimilarity

    def begin(self, model: str | os.PathLike[str], *, new: bool, revision: str | None) -> None:
        """Read how the model makes a vector; one that says nothing takes the mean.

        Raises:
            ValueError: It makes it in a way that is not trained here.
        """
        wanted = [*SENTENCE_FILES, "tokenizer_config.json"]
        directory = Path(model) if new else local_directory(model, wanted, revision=revision)
        self.options = read_sentence_options(directory)
        other = [mode for mode in self.options.pooling if mode not in POOLINGS]
        if (
            other
            or self.options.dense
            or (self.options.default_prompt_name and not self.options.include_prompt)
        ):
            found = f"the pooling {other[0]}" if other else "a Dense layer or a prompt that is not pooled"
            raise ValueError(
                f"{model} has {found}, which train does not learn with; train it with sentence-transformers"
            )

    def head_arguments(self, options: TrainOptions) -> dict[str, Any]:
        """The pooling, and the loss that fits the data."""
        self.dimensions = options.dimensions
        loss = SimilarityLoss(bool(self.scored), options.dimensions)
        return {"pooling": self.options.pooling, "loss": loss}

    def set_labels(self, found: Collection[str]) -> None:
        """There are none."""

    def check_batch(self, rows: int) -> None:
        """Make sure that each text has others to tell apart from its own.

        Raises:
            ValueError: It has none.
        """
        if rows < 2 and self.scored is False and not self._negatives:
            raise ValueError(
                "a batch of one pair has no other texts to tell the right one from; choose a batch size of 2 "
                "or more, give more data, or a column negative"
            )

    def save_beside(self, directory: Path, hidden_size: int) -> None:
        """Write sentence-transformers' files."""
        write_sentence_options(directory, self.options, hidden_size)

    def read(self, path: Path) -> Iterator[SimilarExample]:
        """Rows of pairs, pairs with scores or triplets.

        Raises:
            DataError: One file has scores and another none.
        """
        data = self.data
        pair = None if data.pair_column is None else (data.text_column, data.pair_column)
        column = "score" if data.label_column == "label" else data.label_column
        for example in read_similar(path, pair, column, data.delimiter):
            scored = example.score is not None
            if self.scored is None:
                self.scored, self.monitor = scored, "spearman" if scored else "recall_at_1"  # type: ignore[misc]
            if self.scored != scored:
                raise DataError(
                    f"{path} has {'scores' if scored else 'no scores'} unlike the file before it",
                    "give all files the same columns",
                )
            self._negatives = len(example.texts) > 2
            yield example

    def group_of(self, example: SimilarExample) -> str:
        """Its first text, so that none is both learned from and held out."""
        return example.texts[0]

    def features(self, example: SimilarExample) -> Iterable[Feature]:
        """One row of several texts; its label is the wanted cosine, or the numbers of the texts."""
        prompt = self.options.prompts.get(self.options.default_prompt_name or "", "")
        texts = [prompt + text for text in example.texts]
        texts = [text.lower() for text in texts] if self.options.lower_case else texts
        packed = [pack(self.tokenizer, text, None, self.seq_length) for text in texts]
        numbers = tuple(self._numbers.setdefault(text, len(self._numbers)) for text in texts)
        label = numbers if example.score is None else example.score
        return (Feature([ids for ids, _ in packed], [types for _, types in packed], label),)

    def evaluate(self, model: Any, examples: Sequence[SimilarExample]) -> dict[str, float]:
        """Correlations of cosines with scores; or how often a text is nearest to what belongs to it.

        Recall is among all second and third texts of the examples. With `dimensions` it is also that of
        vectors cut to each length.
        """
        options = BatchOptions(seq_length=self.seq_length, shuffle=0, group=1)
        batches = Batches(lambda: (feature for e in examples for feature in self.features(e)), options)
        vectors = np.concatenate([call(model, x)["logits"] for x, _, _ in batches.epoch(0)])
        metrics = self._metrics(examples, vectors)
        for size in self.dimensions:
            name, value = self.monitor, self._metrics(examples, vectors[..., :size])[self.monitor]
            metrics[f"{name}_of_{size}"] = value
        return metrics

    def _metrics(self, examples: Sequence[SimilarExample], vectors: np.ndarray) -> dict[str, float]:
        first, *others = (unit(vectors[:, place]) for place in range(vectors.shape[1]))
        if self.scored:
            scores, cosines = [e.score or 0.0 for e in examples], (first * others[0]).sum(1).tolist()
            metrics = regression_metrics(scores, cosines)
            # Spearman's correlation is Pearson's of the ranks.
            ranks = require("scipy.stats", "train").rankdata
            pairs = [Prediction(a, b) for a, b in zip(ranks(scores), ranks(cosines), strict=True)]
            low, high = score("regression", pairs).interval
        else:
            right: dict[str, set[str]] = {}
            for example in examples:
                right.setdefault(example.texts[0], set()).add(example.texts[1])
            names = [e.texts[place] for place in range(1, vectors.shape[1]) for e in examples]
            nearest = (first @ np.concatenate(others).T).argmax(1)
            found = [names[place] in right[e.texts[0]] for e, place in zip(examples, nearest, strict=True)]
            metrics = {"recall_at_1": float(np.mean(found))}
            low, high = interval_of(np.stack([np.ones(len(found)), found], axis=1))
        return {**metrics, f"{self.monitor}_low": low, f"{self.monitor}_high": high}
