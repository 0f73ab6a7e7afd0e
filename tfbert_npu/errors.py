"""Errors that a user can fix: one sentence with the cause and the remedy."""

from __future__ import annotations

import importlib
from types import ModuleType

_LONGEST, _BEGINS, _ENDS = 1900, 1200, 600


class TfbertNpuError(Exception):
    """Base of this package's own errors; the command line prints them as one line."""

    def __str__(self) -> str:
        """The message; of one that quotes a file at length, the beginning, and the remedy at its end."""
        text = super().__str__()
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
    """A file cannot be written: the disk is full, a limit is reached, or nobody may write there."""

    def __str__(self) -> str:
        """The sentence, without the system's number."""
        return str(self.strerror)


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
            f"{module} is not installed; install it with: pip install 'tfbert-npu[{extra}]'"
        ) from error
