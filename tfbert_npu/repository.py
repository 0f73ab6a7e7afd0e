"""A hub repository or a local directory, made into a directory of wanted files."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path


def local_directory(
    repo_or_dir: str | os.PathLike[str],
    wanted: Sequence[str],
    *,
    revision: str | None = None,
    token: str | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
    local_files_only: bool = False,
) -> Path:
    """A directory on this machine that holds the files of a model.

    Args:
        repo_or_dir: A directory, or the id of a Hugging Face hub repository such as
            `"google-bert/bert-base-uncased"`. A directory of that name comes first.
        wanted: Glob patterns of the files to download. A local directory is taken as it is.
        revision: Branch, tag or commit of the repository.
        token: Hub access token; by default the one stored by `hf auth login`.
        cache_dir: Where downloads are kept; by default huggingface_hub's cache.
        local_files_only: Never ask the network.

    Raises:
        FileNotFoundError: Neither a directory nor a well-formed repository id.
        OSError: The repository cannot be reached, or what the cache holds of it is incomplete.
    """
    path = Path(repo_or_dir).expanduser()
    if path.is_dir():
        return path
    # huggingface_hub takes half a second to import, and most directories are local.
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError

    try:
        return Path(
            snapshot_download(
                repo_id=os.fspath(repo_or_dir),
                allow_patterns=list(wanted),
                revision=revision,
                token=token,
                cache_dir=None if cache_dir is None else Path(cache_dir),
                local_files_only=local_files_only,
            )
        )
    except HFValidationError as error:
        raise FileNotFoundError(
            f"{repo_or_dir} is neither a directory nor a hub repository id (name or owner/name)"
        ) from error
