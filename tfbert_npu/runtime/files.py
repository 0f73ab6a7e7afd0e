"""An artifact directory, opened, and its files, checked before native code sees them."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

from tfbert_npu._files import refuse_pointer
from tfbert_npu.artifact import rk_transformers
from tfbert_npu.artifact.embeddings import HostEmbeddings
from tfbert_npu.artifact.hashing import sha256_of
from tfbert_npu.artifact.manifest import MANIFEST, Manifest, ModelFile
from tfbert_npu.artifact.rknn_file import read_rknn
from tfbert_npu.config import BertConfig
from tfbert_npu.errors import ArtifactError

# The vendor writes rk3568 into files for its twin rk3566.
_TWINS = frozenset({"rk3566", "rk3568"})


@dataclass(frozen=True)
class Artifact:
    """An artifact directory: what it says of itself."""

    directory: Path
    manifest: Manifest
    config: BertConfig

    @classmethod
    def open(cls, directory: str | os.PathLike[str], file: str | None = None) -> Artifact:
        """Read manifest and configuration.

        Args:
            directory: What `export_rknn` wrote, or a directory of rk-transformers, which has no manifest.
            file: The one of its `.rknn` files that is wanted; by default all. Of several without a manifest
                one must be named.

        Raises:
            FileNotFoundError: No artifact directory, or no such file in it.
            ArtifactError: The manifest is damaged, a file is missing or not the one that was exported, or
                there is none of that name.
        """
        path = Path(directory).expanduser().absolute()
        manifest = read_manifest(path, file)
        # What the user's text goes through: another line order in vocab.txt gives other ids, silently.
        needed = ("config", "embeddings", "tokenizer")
        manifest.check_files(path, [file.path for file in manifest.support if file.kind in needed])
        return cls(path, manifest, BertConfig.from_json(path / "config.json", source="huggingface"))

    def embeddings(self) -> HostEmbeddings | None:
        """The tables that the host sums, for files that were compiled without them."""
        return HostEmbeddings.load(self.directory) if self.manifest.embeddings == "host" else None


# Where an open file has a name of its own; a system without either has the file's own name only.
_OPEN_FILES = ("/proc/self/fd", "/dev/fd")


class VerifiedFile:
    """A model file whose content was compared with the manifest, held open.

    Native code is given the open file's own name, so that it reads what was checked even if the directory has
    been replaced meanwhile.

    Args:
        directory: The artifact directory.
        model: The file's entry in the manifest.

    Raises:
        ArtifactError: It is missing, damaged, another file than the one that was exported, or its header
            says something else than the manifest.
    """

    def __init__(self, directory: Path, model: ModelFile) -> None:
        self.model = model
        self.name = directory / model.path
        try:
            self._descriptor = os.open(self.name, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError as error:
            raise ArtifactError(f"{self.name} is missing", "copy or export the directory again") from error
        try:
            size = os.fstat(self._descriptor).st_size
            if size != model.size:
                refuse_pointer(self.name)
                raise ArtifactError(
                    f"{self.name} has {size} bytes, not the {model.size} of the manifest",
                    "copy or export it again",
                )
            if sha256_of(self._path) != model.sha256:
                raise ArtifactError(
                    f"{self.name} is not the file that was exported (SHA-256)", "copy or export it again"
                )
            self._state = self._identity()
            if model.kind == "rknn":
                self._check_header()
        except BaseException:
            os.close(self._descriptor)
            raise
        self._open = True

    def path(self) -> str:
        """A name under which the checked content can be read.

        Raises:
            ArtifactError: Somebody has written into the file since.
        """
        if self._identity() != self._state:
            raise ArtifactError(
                f"{self.name} was changed while it was in use", "copy or export it again and load it again"
            )
        return self._path

    def close(self) -> None:
        """Close the file; a second call does nothing."""
        if self._open:
            self._open = False
            os.close(self._descriptor)

    @property
    def _path(self) -> str:
        for folder in _OPEN_FILES:
            if os.path.isdir(folder):
                return f"{folder}/{self._descriptor}"
        return os.fspath(self.name)

    def _identity(self) -> tuple[int, int]:
        stat = os.fstat(self._descriptor)
        return stat.st_size, stat.st_mtime_ns

    def _check_header(self) -> None:
        header = read_rknn(self._path)
        if self.model.platform is not None and not runs_on(self.model.platform, header.platforms):
            raise ArtifactError(
                f"{self.name} is for {', '.join(header.platforms)} and its manifest says "
                f"{self.model.platform}",
                "export it again",
            )
        names = [rk_transformers.our_name(spec.name) for spec in header.inputs]
        if names != [spec.name for spec in self.model.inputs]:
            raise ArtifactError(f"{self.name} takes other inputs than its manifest says", "export it again")


def read_manifest(directory: Path, file: str | None = None) -> Manifest:
    """The manifest that a directory holds, or the one that its `.rknn` file gives; see `Artifact.open`."""
    if is_of_rk_transformers(directory):
        return rk_transformers.manifest_of(directory, file)
    manifest = Manifest.read(directory)
    return manifest if file is None else manifest.only(file)


def artifact_sha256(directory: str | os.PathLike[str]) -> str | None:
    """Digest of what an artifact promises: its manifest, or where it has none its `.rknn` files.

    None: there is no artifact. The manifest holds the digests of all other files.
    """
    path = Path(directory)
    if (path / MANIFEST).is_file():
        return sha256_of(path / MANIFEST)
    if not is_of_rk_transformers(path):
        return None
    return hashlib.sha256(
        "".join(sha256_of(path / name) for name in sorted(rk_transformers.rknn_files(path))).encode()
    ).hexdigest()


def is_artifact(directory: str | os.PathLike[str]) -> bool:
    """Whether a directory holds something that `Artifact.open` opens."""
    path = Path(directory)
    return (path / MANIFEST).is_file() or is_of_rk_transformers(path)


def is_of_rk_transformers(path: Path) -> bool:
    """Whether a directory holds a configuration and `.rknn` files, but no manifest."""
    return (
        (path / "config.json").is_file()
        and not (path / MANIFEST).is_file()
        and bool(rk_transformers.rknn_files(path))
    )


def runs_on(target: str, platforms: tuple[str, ...]) -> bool:
    """Whether a file for `platforms` runs on the SoC that the compiler calls `target`."""
    return target in platforms or bool(_TWINS & {target} and _TWINS & set(platforms))
