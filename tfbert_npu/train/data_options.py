"""Which files a training reads and what their columns are called."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from tfbert_npu.tasks.schemes import SchemeName

TaskName = Literal["classify", "pair", "regression", "choice", "ner", "qa", "similarity"]
ClassWeights = Literal["none", "balanced"]


@dataclass(frozen=True)
class DataOptions:
    """The data of a fine-tuning.

    Attributes:
        train: Training data; the task says in which formats.
        dev: Held-out data; without it `dev_fraction` of the training data is held out.
        test: Data for the figure to report: the best epoch's model is scored on it once, at the end.
        dev_fraction: Part of the training data to hold out, in [0, 1); every class in its share, articles
            whole. 0 holds out none.
        test_fraction: Without `test`: part of the training data to hold out for the figure to report.
        text_column: Column of the text (of the premise in multiple choice).
        pair_column: Column of the second text.
        label_column: Column of the label.
        choice_columns: Columns of the choices.
        delimiter: Separates the fields of a CSV file; by default found out from the header.
        word_column: Column of the word in CoNLL, from 0; by default found out from the first sentence.
        tag_column: Column of the label in CoNLL, from 0.
        multi_label: A text may have several labels.
        labels: Names of the labels in the order of their indices; by default the training data's, sorted.
        scheme: How labels mark entities; by default recognized from their names.
        class_weights: `"balanced"` gives every class the same part in the loss.
        stride: Overlap of a question's windows in tokens.
        no_answer: Questions may have no answer (SQuAD 2.0).
        cache: Keep word ids in memory instead of making them again in every epoch.
        seed: Of what is held out.
    """

    train: Path
    dev: Path | None = None
    test: Path | None = None
    dev_fraction: float = 0.1
    test_fraction: float = 0.0
    text_column: str = "text"
    pair_column: str | None = None
    label_column: str = "label"
    choice_columns: tuple[str, ...] = ()
    delimiter: str | None = None
    word_column: int | None = None
    tag_column: int | None = None
    multi_label: bool = False
    labels: tuple[str, ...] | None = None
    scheme: SchemeName | None = None
    class_weights: ClassWeights = "none"
    stride: int = 128
    no_answer: bool = False
    cache: bool = True
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.dev_fraction < 1:
            raise ValueError(f"dev_fraction must be in [0, 1), got {self.dev_fraction}")
        if not 0 <= self.test_fraction < 1 - self.dev_fraction:
            raise ValueError(
                f"test_fraction must be in [0, 1) and leave data to train on beside dev_fraction "
                f"{self.dev_fraction}, got {self.test_fraction}"
            )
        if self.delimiter is not None and (len(self.delimiter) != 1 or self.delimiter in '\r\n"'):
            raise ValueError(f"delimiter must be one character other than a quote, got {self.delimiter!r}")
        if self.class_weights not in get_args(ClassWeights):
            raise ValueError(
                f"class_weights must be one of {get_args(ClassWeights)}, got {self.class_weights!r}"
            )
