"""A hub repository or a local directory, made into a directory of wanted files.

Only what is asked for is downloaded, through huggingface_hub and into its cache, so its settings hold:
HF_ENDPOINT, HF_HUB_CACHE, HF_HUB_OFFLINE, HF_TOKEN, and its progress bars.
"""

from __future__ import annotations

import fnmatch
import glob
import json
import logging
import os
import re
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from tfbert_npu._failed_writes import explaining_failed_write
from tfbert_npu._files import refuse_pointer, replacing
from tfbert_npu.errors import CheckpointError
from tfbert_npu.paths import list_files

Chooser = Callable[[Sequence[str]], Sequence[str]]
"""Takes the files of a repository, as POSIX paths, and names those to download; raises where one that the
model cannot do without is not among them."""

_FULL_SHA = re.compile(r"[0-9a-f]{40}")
_MORE_ATTEMPTS = 2

_log = logging.getLogger(__name__)


def local_directory(
    repo_or_dir: str | os.PathLike[str],
    wanted: Sequence[str] | Chooser,
    *,
    revision: str | None = None,
    token: str | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
    local_files_only: bool = False,
) -> Path:
    """A directory on this machine that holds the wanted files of a model.

    A revision given as a full commit hash answers from the cache, without any network, where the cache holds
    the files. Where the hub cannot be reached, a complete copy in the cache serves, with a logged warning.

    Args:
        repo_or_dir: A directory, or the id of a Hugging Face hub repository such as
            `"google-bert/bert-base-uncased"`. A directory of that name comes first.
        wanted: Glob patterns of the files to download, or a function that chooses among all files of the
            repository. A local directory is taken as it is.
        revision: Branch, tag or commit of the repository.
        token: Hub access token; by default the one stored by `hf auth login`.
        cache_dir: Where downloads are kept; by default huggingface_hub's cache.
        local_files_only: Never ask the network.

    Raises:
        FileNotFoundError: Neither a directory nor an existing repository; or offline, and what the cache
            holds is not complete.
        PermissionError: The repository is gated and the token does not open it.
        ConnectionError: The hub cannot be reached, and the cache holds no complete copy.
        CheckpointError: Whatever `wanted` raises for a repository that lacks a file.
    """
    choose = wanted if callable(wanted) else _matching(wanted)
    path = Path(repo_or_dir).expanduser()
    if path.is_dir():
        files = list_files(path) if callable(wanted) else [file.name for file in path.iterdir()]
        for file in choose(files):
            refuse_pointer(path / file)
        return path
    # huggingface_hub takes half a second to import, and most directories are local.
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id

    try:
        validate_repo_id(os.fspath(repo_or_dir))
    except HFValidationError as error:
        raise FileNotFoundError(
            f"{repo_or_dir} is neither a directory nor a hub repository id (name or owner/name)"
        ) from error
    source = _HubSource(
        repo_id=os.fspath(repo_or_dir),
        revision=revision or "main",
        token=token,
        cache_dir=None if cache_dir is None else Path(cache_dir).expanduser(),
    )
    if local_files_only or _offline():
        return source.from_cache(choose)
    if _FULL_SHA.fullmatch(source.revision):
        try:
            return source.from_cache(choose, known_complete=True)
        except (FileNotFoundError, CheckpointError):
            pass  # not complete there: the hub has the rest
    return source.from_hub(choose)


def _matching(patterns: Sequence[str]) -> Chooser:
    def choose(files: Sequence[str]) -> list[str]:
        return [file for file in files if any(fnmatch.fnmatchcase(file, pattern) for pattern in patterns)]

    return choose


def _offline() -> bool:
    import huggingface_hub.constants

    return bool(huggingface_hub.constants.HF_HUB_OFFLINE)


def unreachable() -> tuple[type[Exception], ...]:
    """What the client raises when no hub answers; its HTTP library has changed twice between its versions."""
    errors: list[type[Exception]] = [ConnectionError, TimeoutError]
    if "requests" in sys.modules:
        of_requests = sys.modules["requests"].exceptions
        errors += [of_requests.ConnectionError, of_requests.Timeout, of_requests.ChunkedEncodingError]
    errors += [sys.modules[name].TransportError for name in ("httpx", "httpx2") if name in sys.modules]
    return tuple(errors)


@dataclass(frozen=True)
class _HubSource:
    repo_id: str
    revision: str
    token: str | None
    cache_dir: Path | None

    @property
    def _at(self) -> str:
        return self.repo_id if self.revision == "main" else f"{self.repo_id} at {self.revision}"

    def from_cache(
        self, choose: Chooser, listing: Sequence[str] | None = None, known_complete: bool = False
    ) -> Path:
        """The cached snapshot, where it holds all that `choose` names; FileNotFoundError where not.

        Args:
            choose: See `local_directory`.
            listing: All files of the repository, if the hub has just told.
            known_complete: Whether to refuse a snapshot that somebody else downloaded, of which nothing says
                which files the repository has besides.
        """
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import LocalEntryNotFoundError

        remedy = "run once with network access and without HF_HUB_OFFLINE or local_files_only"
        try:
            # A pattern that no file matches: this asks where the snapshot is, not whether it is complete.
            directory = Path(
                snapshot_download(
                    repo_id=self.repo_id,
                    revision=self.revision,
                    cache_dir=self.cache_dir,
                    allow_patterns=["\0"],
                    local_files_only=True,
                )
            )
        except (LocalEntryNotFoundError, FileNotFoundError) as error:
            raise FileNotFoundError(f"{self._at} is not in the cache; {remedy}") from error
        present = list_files(directory)
        listing = listing or self._kept_listing(directory.name)
        if listing is None and known_complete:
            raise FileNotFoundError(f"the cache does not say which files {self._at} has; {remedy}")
        missing = sorted(set(choose(listing or present)) - set(present))
        if missing:
            raise FileNotFoundError(
                f"the cache holds only a part of {self._at}, {', '.join(missing)} missing; {remedy}"
            )
        return directory

    def _kept_listing(self, sha: str) -> list[str] | None:
        """All files of the repository at a commit, as huggingface_hub 2.x or `_keep_listing` noted them."""
        import huggingface_hub

        cached_tree = getattr(huggingface_hub, "get_cached_repo_tree", None)
        if cached_tree is None:
            try:
                files = json.loads(self._listing_file(sha).read_text(encoding="utf-8"))
            except (OSError, ValueError):
                return None
            return [str(file) for file in files] if isinstance(files, list) else None
        from huggingface_hub.errors import CachedRepoTreeNotFoundError

        try:
            tree = cached_tree(self.repo_id, revision=sha, cache_dir=self.cache_dir)
        except CachedRepoTreeNotFoundError:
            return None
        return [file.path for file in tree]

    def _keep_listing(self, sha: str, files: Sequence[str]) -> None:
        """Note the files of a commit beside its snapshot, which huggingface_hub before 2.0 does not."""
        import huggingface_hub

        if hasattr(huggingface_hub, "get_cached_repo_tree"):
            return
        path = self._listing_file(sha)
        with suppress(OSError):  # a cache that is only for reading does without
            path.parent.mkdir(parents=True, exist_ok=True)
            with replacing(path) as temporary:
                temporary.write_text(json.dumps(list(files)), encoding="utf-8")

    def _listing_file(self, sha: str) -> Path:
        from huggingface_hub import constants
        from huggingface_hub.file_download import repo_folder_name

        folder = repo_folder_name(repo_id=self.repo_id, repo_type="model")
        return Path(self.cache_dir or constants.HF_HUB_CACHE, folder, "listings", f"{sha}.json")

    def from_hub(self, choose: Chooser) -> Path:
        """Ask the hub for the list of files, and download what `choose` names."""
        from huggingface_hub import HfApi
        from huggingface_hub.errors import (
            GatedRepoError,
            HfHubHTTPError,
            LocalEntryNotFoundError,
            RepositoryNotFoundError,
            RevisionNotFoundError,
        )

        api = HfApi(token=self.token)
        listing: list[str] = []
        unavailable: tuple[type[Exception], ...] = (HfHubHTTPError, LocalEntryNotFoundError, *unreachable())
        try:
            info = api.model_info(self.repo_id, revision=self.revision)
            listing = [sibling.rfilename for sibling in info.siblings or ()]
            for file in listing:
                if PurePosixPath(file).is_absolute() or ".." in PurePosixPath(file).parts:
                    raise CheckpointError(f"{self._at} lists the file {file!r}, a path out of the repository")
            self._keep_listing(str(info.sha), listing)
            return self._download(choose(listing))
        except GatedRepoError as error:
            raise PermissionError(
                f"{self._at} is gated; accept its terms on {api.endpoint}/{self.repo_id} and pass token= "
                "or run `hf auth login`"
            ) from error
        except RevisionNotFoundError as error:
            raise FileNotFoundError(
                f"{self.repo_id} has no revision {self.revision!r}; name one of its branches, tags or commits"
            ) from error
        except RepositoryNotFoundError as error:
            raise FileNotFoundError(
                f"{self.repo_id} is neither a directory nor a repository on {api.endpoint}; check the name "
                "or, if it is private, pass token= or run `hf auth login`"
            ) from error
        except unavailable as error:
            cause = f"{api.endpoint} does not answer ({first_line(error)})"
            return self._fall_back(choose, listing, cause, error)

    def _download(self, files: Sequence[str]) -> Path:
        from huggingface_hub import snapshot_download

        def download() -> Path:
            return Path(
                snapshot_download(
                    repo_id=self.repo_id,
                    # By name, so that huggingface_hub notes which commit it meant, for offline use.
                    revision=self.revision,
                    allow_patterns=[glob.escape(file) for file in files],
                    token=self.token,
                    cache_dir=self.cache_dir,
                )
            )

        from huggingface_hub import constants

        with explaining_failed_write(self.cache_dir or constants.HF_HUB_CACHE):
            for _ in range(_MORE_ATTEMPTS):
                # The hub has just answered, so this is a line that breaks; what came is kept, not sent again.
                with suppress(*unreachable()):
                    return download()
            return download()

    def _fall_back(self, choose: Chooser, listing: list[str], cause: str, error: Exception) -> Path:
        try:
            directory = self.from_cache(choose, listing)
        except (FileNotFoundError, CheckpointError):
            raise ConnectionError(
                f"{cause} and the cache holds no complete copy of {self._at}; check the network connection "
                "and HF_ENDPOINT, or give a local directory"
            ) from error
        _log.warning("%s; %s is taken from the cache", cause, self._at)
        return directory


def first_line(error: Exception) -> str:
    """What an error says, cut down to go into a sentence."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
