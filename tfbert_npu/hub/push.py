"""`push_to_hub`: a model or a directory of model files to a hub repository, in one commit."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tfbert_npu._failed_writes import explaining_failed_write
from tfbert_npu._files import scratch_directory
from tfbert_npu.hub.card import CARD, MANIFEST, CardInfo, make_card
from tfbert_npu.paths import file_inside, list_files
from tfbert_npu.repository import first_line, unreachable


def push_to_hub(
    model_or_dir: Any,
    repo_id: str,
    *,
    preprocessor: Any = None,
    base_model: str | None = None,
    license: str | None = None,
    language: Sequence[str] = (),
    datasets: Sequence[str] = (),
    metrics: Mapping[str, float] | None = None,
    description: str = "",
    overwrite_card: bool = False,
    private: bool | None = None,
    revision: str | None = None,
    token: str | None = None,
    commit_message: str = "Upload model with tfbert-npu",
    dry_run: bool = False,
) -> str:
    """Upload a model, with a model card, to a Hugging Face hub repository.

    All files go up in one commit: the repository holds the old model or the new one, never a mixture. Files
    that the repository has and the model has not stay.

    Args:
        model_or_dir: A `BertEncoder` or task head, saved by its `save_pretrained`; or a directory, such as an
            NPU artifact, whose files go up as they are, hidden ones left out.
        repo_id: `"owner/name"`; made if it does not exist.
        preprocessor: A `BertPreprocessor` or `BertTokenizer` to save beside the model.
        base_model: Repository of the model that this one was made from, for the card.
        license: Identifier of the license, such as `"apache-2.0"`, for the card.
        language: Language codes, for the card.
        datasets: Hub data sets it was trained on, for the card.
        metrics: Measured figures by name, for the card.
        description: What the model is for, for the card.
        overwrite_card: Replace the README.md that the repository has; by default it stays as it is.
        private: Whether a new repository is private; by default as the account is set up.
        revision: Branch to commit to; by default `main`.
        token: Hub access token with the right to write; by default the one stored by `hf auth login`.
        commit_message: First line of the commit.
        dry_run: Upload nothing and ask no hub; say what would go up.

    Returns:
        Address of the commit; of a dry run the files with their sizes, one a line.

    Raises:
        ValueError: Neither a model that can be saved nor a directory, or a directory without files, or one
            with a README.md of its own together with arguments for a new one.
        CheckpointError: A file is a link out of the directory.
        PermissionError: The token may not write there.
        ConnectionError: The hub cannot be reached.

    Example:
        With a token that may write:

        >>> from tfbert_npu import BertEncoder, push_to_hub
        >>> encoder = BertEncoder.from_pretrained("out/mine")  # doctest: +SKIP
        >>> push_to_hub(encoder, "owner/name", license="apache-2.0")  # doctest: +SKIP
        'https://huggingface.co/owner/name/commit/...'
    """
    info = CardInfo(base_model, license, tuple(language), tuple(datasets), dict(metrics or {}), description)
    with scratch_directory() as scratch, explaining_failed_write(scratch):
        directory = _directory_of(model_or_dir, Path(scratch))
        if preprocessor is not None:
            preprocessor.save_pretrained(scratch)
        files = {name: file_inside(directory, name) for name in list_files(directory) if not _is_hidden(name)}
        files.update({name: Path(scratch, name) for name in list_files(Path(scratch))})
        if not files:
            raise ValueError(f"{directory} holds no files to upload")
        is_artifact = MANIFEST in files
        if CARD in files and info != CardInfo() and not is_artifact:
            raise ValueError(
                f"{directory} has a {CARD} of its own; leave out what is for the card (base_model, license, "
                "...), or remove the file to have one written"
            )
        # The card that an export leaves in an artifact knows neither repository nor license.
        if CARD not in files or is_artifact:
            files[CARD] = Path(scratch, CARD)
            files[CARD].write_text(make_card(directory, repo_id, info), encoding="utf-8")
        if is_artifact:
            files[MANIFEST] = _without_card(files[MANIFEST], Path(scratch, MANIFEST))
        if dry_run:
            sizes = [f"{path.stat().st_size:>12}  {name}" for name, path in sorted(files.items())]
            return "\n".join((f"would upload {len(files)} files to {repo_id}:", *sizes))
        return _upload(files, repo_id, overwrite_card, private, revision, token, commit_message)


def _directory_of(model_or_dir: Any, scratch: Path) -> Path:
    if hasattr(model_or_dir, "save_pretrained"):
        model_or_dir.save_pretrained(scratch)
        return scratch
    if not isinstance(model_or_dir, (str, os.PathLike)) or not Path(model_or_dir).is_dir():
        raise ValueError(
            f"{model_or_dir!r} is neither a directory nor a model with save_pretrained; pass one of them"
        )
    return Path(model_or_dir)


def _without_card(manifest: Path, target: Path) -> Path:
    """A manifest that does not hold the card to its digest: on the hub, people edit it."""
    values = json.loads(manifest.read_text(encoding="utf-8"))
    values["support"] = [entry for entry in values.get("support", ()) if entry.get("path") != CARD]
    target.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")
    return target


def _is_hidden(name: str) -> bool:
    return any(part.startswith(".") for part in Path(name).parts)


def _upload(
    files: dict[str, Path],
    repo_id: str,
    overwrite_card: bool,
    private: bool | None,
    revision: str | None,
    token: str | None,
    commit_message: str,
) -> str:
    from huggingface_hub import CommitOperationAdd, HfApi
    from huggingface_hub.errors import HfHubHTTPError

    api = HfApi(token=token)
    try:
        repo_id = api.create_repo(repo_id, private=private, exist_ok=True).repo_id
        if revision is not None:
            api.create_branch(repo_id, branch=revision, exist_ok=True)
        there = api.model_info(repo_id, revision=revision)
        if any(sibling.rfilename == CARD for sibling in there.siblings or ()) and not overwrite_card:
            del files[CARD]
        commit = api.create_commit(
            repo_id,
            [
                CommitOperationAdd(path_in_repo=name, path_or_fileobj=path)
                for name, path in sorted(files.items())
            ],
            commit_message=commit_message,
            revision=revision,
            # Somebody else's commit in between makes this one fail instead of mixing with it.
            parent_commit=there.sha,
        )
    except HfHubHTTPError as error:
        status = getattr(error.response, "status_code", None)
        if status in (401, 403):
            raise PermissionError(
                f"{api.endpoint} refuses to write to {repo_id} ({first_line(error)}); pass token= of one "
                "who may, or run `hf auth login`"
            ) from error
        raise ConnectionError(
            f"{api.endpoint} did not take {repo_id} ({first_line(error)}); try again"
        ) from error
    except unreachable() as error:
        raise ConnectionError(
            f"{api.endpoint} cannot be reached ({first_line(error)}); check the network and HF_ENDPOINT"
        ) from error
    return str(commit.commit_url)
