"""What a fake hub holds: repositories with commits, branches and file contents."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from pathlib import Path

# .gitattributes of a new model repository on the hub sends these to large file storage.
LFS_SUFFIXES = (".safetensors", ".bin", ".h5", ".onnx", ".rknn", ".msgpack", ".ot", ".npz")
LFS_SUFFIXES += (".data-00000-of-00001", ".data-00000-of-00002", ".data-00001-of-00002")
LFS_THRESHOLD = 10 * 1024 * 1024


def git_blob_id(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def is_lfs(path: str, size: int) -> bool:
    return size > 0 and (path.endswith(LFS_SUFFIXES) or size >= LFS_THRESHOLD)


@dataclass
class Repo:
    """One model repository: `commits` by sha, `refs` from branch and tag names to shas."""

    repo_id: str
    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    refs: dict[str, str] = field(default_factory=dict)
    gated: bool = False
    private: bool = False

    def commit(self, files: dict[str, bytes], branch: str = "main") -> str:
        """Add a commit whose tree is exactly `files`; returns its sha."""
        parent = self.refs.get(branch, "")
        text = parent + "".join(f"{path} {sha256(content)}\n" for path, content in sorted(files.items()))
        sha = hashlib.sha1(f"{self.repo_id}\n{branch}\n{text}".encode()).hexdigest()
        self.commits[sha] = dict(files)
        self.refs[branch] = sha
        return sha

    def commit_directory(self, directory: Path, branch: str = "main") -> str:
        files = {
            path.relative_to(directory).as_posix(): path.read_bytes()
            for path in sorted(directory.rglob("*"))
            if path.is_file()
        }
        return self.commit(files, branch)

    def resolve(self, revision: str) -> str | None:
        return revision if revision in self.commits else self.refs.get(revision)

    def files(self, revision: str = "main") -> dict[str, bytes]:
        sha = self.resolve(revision)
        assert sha is not None, f"{self.repo_id} has no revision {revision}"
        return self.commits[sha]
