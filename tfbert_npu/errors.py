"""Errors that a user can fix: one sentence with the cause and the remedy."""

from __future__ import annotations

import importlib
from types import ModuleType
from typing import TypeVar

_E = TypeVar("_E", bound="TfbertNpuError")

_LONGEST, _BEGINS, _ENDS = 1900, 1200, 600


class TfbertNpuError(Exception):
    """Base of this package's own errors; the command line prints them as one line: cause; remedy.

    Args:
        cause: What is wrong, and where.
        remedy: What to do about it; None where the cause says it.

    Attributes:
        cause: As given.
        remedy: As given.

    Example:
        >>> error = TfbertNpuError("the disk is full", "free some space")
        >>> str(error), error.remedy
        ('the disk is full; free some space', 'free some space')
    """

    def __init__(self, cause: str = "", remedy: str | None = None) -> None:
        self.cause, self.remedy = cause, remedy
        super().__init__(self.sentence)

    @property
    def sentence(self) -> str:
        """Cause and remedy, whole."""
        return self.cause if self.remedy is None else f"{self.cause}; {self.remedy}"

    def within(self: _E, where: object) -> _E:
        """The same error with the place where it was met before its cause: a directory, a line."""
        return type(self)(f"{where}: {self.cause}", self.remedy)

    def __str__(self) -> str:
        """The message; of one that quotes a file at length, the beginning, and the remedy at its end."""
        text = self.sentence
        return text if len(text) <= _LONGEST else f"{text[:_BEGINS]} ... {text[-_ENDS:]}"


class MissingExtraError(TfbertNpuError, ImportError):
    """An optional dependency is not installed; the message holds the pip command that installs it."""


class CheckpointError(TfbertNpuError, ValueError):
    """A checkpoint cannot be read, or does not hold what its configuration promises."""


class TaskError(TfbertNpuError, ValueError):
    """A model cannot do what is asked of it: its head is for something else, or names no labels."""


class VocabularyError(TfbertNpuError, ValueError):
    """A vocabulary file cannot serve as a BERT vocabulary."""


class ArtifactError(TfbertNpuError, ValueError):
    """An artifact directory, or a file in it, is damaged, incomplete or made for something else."""


class FailedWriteError(TfbertNpuError, OSError):
    """A file cannot be written: the disk is full, a limit is reached, or nobody may write there.

    Args:
        cause: As for any error of ours.
        remedy: As for any error of ours.
        number: The system's, such as `errno.ENOSPC`.
    """

    def __init__(self, cause: str = "", remedy: str | None = None, number: int = 0) -> None:
        super().__init__(cause, remedy)
        self.errno = number


class GitLfsPointerError(CheckpointError, VocabularyError, ArtifactError):
    """A file is git-lfs's pointer to a file that was not fetched."""


def require(module: str, extra: str) -> ModuleType:
    """Import `module`, or say which extra of this package brings it.

    Args:
        module: Import name, such as `"tensorflow_text"`.
        extra: Extra of `tfbert-npu` that installs it, such as `"tf"`.

    Raises:
        MissingExtraError: The module is not installed.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is not None and error.name.partition(".")[0] != module.partition(".")[0]:
            raise  # the module is there; something beneath it is not, and its own message says what
        raise MissingExtraError(
            f"{module} is not installed", f"install it with: pip install 'tfbert-npu[{extra}]'"
        ) from error
