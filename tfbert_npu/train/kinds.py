"""Which task a name stands for."""

from __future__ import annotations

from typing import Any, get_args

from tfbert_npu.heads import heads_for
from tfbert_npu.preprocess import BertTokenizer
from tfbert_npu.train.data_options import DataOptions, TaskName
from tfbert_npu.train.similarity import SimilarityTask
from tfbert_npu.train.tasks import ChoiceTask, QuestionTask, RegressionTask, TagTask, Task, TextTask

# Which heads learn a task of that name, the table of heads says.
_KINDS: tuple[type[Task[Any]], ...] = (TextTask, ChoiceTask, TagTask, QuestionTask)


def make_task(name: TaskName, data: DataOptions, tokenizer: BertTokenizer, seq_length: int) -> Task[Any]:
    """The task of that name.

    Raises:
        ValueError: There is no such task, or it lacks a column.
    """
    if name not in get_args(TaskName):
        raise ValueError(f"task must be one of {get_args(TaskName)}, got {name!r}")
    if name == "pair" and data.pair_column is None:
        raise ValueError("the task pair needs the name of the column with the second text")
    if name == "similarity":  # what is trained is the encoder, which a user asks to embed
        return SimilarityTask(data, tokenizer, seq_length)
    kind = next(kind for kind in _KINDS if kind.spec in heads_for(name))
    return (RegressionTask if name == "regression" else kind)(data, tokenizer, seq_length)
