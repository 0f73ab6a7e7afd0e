"""A hub repository or a local directory, made into a directory of wanted files.

Only what is asked for is downloaded, through huggingface_hub and into its cache, so its settings hold:
HF_ENDPOINT, HF_HUB_CACHE, HF_HUB_OFFLINE, HF_TOKEN, and its progress bars.
"""

from __future__ import annotations

import fnmatch
import glob
import logging
import os
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath

from tfbert_npu.errors import CheckpointError

Chooser = Callable[[Sequence[str]], Sequence[str]]
"""Takes the files of a repository, as POSIX paths, and names those to download; raises where one that the
model cannot do without is not among them."""

_FULL_SHA = re.compile(r"[0-9a-f]{40}")
_MAX_DEPTH = 4
_MAX_FILES = 20_000

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
        if callable(wanted):
            choose(list_files(path))
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
            return source.from_cache(choose)
        except (FileNotFoundError, CheckpointError):
            pass  # not complete there: the hub has the rest
    return source.from_hub(choose)


def list_files(directory: Path) -> list[str]:
    """Files below a directory as sorted POSIX paths; hidden folders and what lies deeper than 4 are left out.

    Raises:
        CheckpointError: There are more than 20 000 files, so this is no model directory.
    """
    found: list[str] = []
    for folder, folders, files in os.walk(directory):
        here = Path(folder).relative_to(directory)
        folders[:] = [name for name in folders if not name.startswith(".")]
        if len(here.parts) >= _MAX_DEPTH:
            folders.clear()
        found += [(here / name).as_posix() for name in files]
        if len(found) > _MAX_FILES:
            raise CheckpointError(
                f"{directory} holds more than {_MAX_FILES} files; give the directory of one model"
            )
    return sorted(found)


def file_inside(directory: Path, name: str) -> Path:
    """The file that a name read from a model's own files means, such as a shard named in an index.

    Raises:
        CheckpointError: The name is absolute, climbs with `..`, or leads out of the directory by a link. (The
            links of huggingface_hub's cache, from a snapshot to its blobs, are what they should be.)
    """
    windows = PureWindowsPath(name)
    posix = PurePosixPath(name)
    if (
        not posix.parts
        or posix.is_absolute()
        or windows.drive
        or windows.root
        or "\0" in name
        or ".." in windows.parts
    ):
        raise CheckpointError(
            f"{directory} names the file {name!r}, which is not a path inside it; do not use this model"
        )
    path = directory / posix
    try:
        real = path.resolve()
    except (OSError, RuntimeError) as error:
        raise CheckpointError(f"{path} cannot be followed ({error}); remove the link") from error
    if not any(real.is_relative_to(root) for root in _roots(directory)):
        raise CheckpointError(
            f"{path} is a link that leads out of its directory, to {real}; replace it with a copy of the file"
        )
    return path


def _roots(directory: Path) -> list[Path]:
    """The directory, and in huggingface_hub's cache the two stores that a snapshot's links point into."""
    real = directory.resolve()
    roots = [real]
    for snapshot in (real, *real.parents):
        if snapshot.parent.name == "snapshots" and snapshot.parent.parent.name.startswith("models--"):
            storage = snapshot.parent.parent
            roots += [storage / "blobs", storage.parent / "blobs"]
    return roots


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
        errors += [sys.modules["requests"].ConnectionError, sys.modules["requests"].Timeout]
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

    def from_cache(self, choose: Chooser) -> Path:
        """The cached snapshot, where it holds all that `choose` names; FileNotFoundError where not."""
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
        listing = self._cached_listing()
        present = list_files(directory)
        missing = sorted(set(choose(listing or present)) - set(present))
        if missing:
            raise FileNotFoundError(
                f"the cache holds only a part of {self._at}, {', '.join(missing)} missing; {remedy}"
            )
        return directory

    def _cached_listing(self) -> list[str] | None:
        """All files of the repository at this revision, where huggingface_hub (2.x) has kept their list."""
        import huggingface_hub

        cached_tree = getattr(huggingface_hub, "get_cached_repo_tree", None)
        if cached_tree is None:
            return None
        from huggingface_hub.errors import CachedRepoTreeNotFoundError

        try:
            tree = cached_tree(self.repo_id, revision=self.revision, cache_dir=self.cache_dir)
        except CachedRepoTreeNotFoundError:
            return None
        return [file.path for file in tree]

    def from_hub(self, choose: Chooser) -> Path:
        """Ask the hub for the list of files, and download what `choose` names."""
        from huggingface_hub import HfApi, snapshot_download
        from huggingface_hub.errors import (
            GatedRepoError,
            HfHubHTTPError,
            LocalEntryNotFoundError,
            RepositoryNotFoundError,
            RevisionNotFoundError,
        )

        api = HfApi(token=self.token)
        unavailable: tuple[type[Exception], ...] = (HfHubHTTPError, LocalEntryNotFoundError, *unreachable())
        try:
            info = api.model_info(self.repo_id, revision=self.revision)
            listing = [sibling.rfilename for sibling in info.siblings or ()]
            for file in listing:
                if PurePosixPath(file).is_absolute() or ".." in PurePosixPath(file).parts:
                    raise CheckpointError(f"{self._at} lists the file {file!r}, a path out of the repository")
            return Path(
                snapshot_download(
                    repo_id=self.repo_id,
                    # By name, so that huggingface_hub notes which commit the name meant, for offline use.
                    revision=self.revision,
                    allow_patterns=[glob.escape(file) for file in choose(listing)],
                    token=self.token,
                    cache_dir=self.cache_dir,
                )
            )
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
            return self._fall_back(choose, f"{api.endpoint} does not answer ({first_line(error)})", error)

    def _fall_back(self, choose: Chooser, cause: str, error: Exception) -> Path:
        try:
            directory = self.from_cache(choose)
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
