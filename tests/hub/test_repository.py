"""Repositories through the real huggingface_hub client against the fake hub: files, bytes, errors."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest
from fakehub import FakeHub
from hypothesis import given
from hypothesis import strategies as st

from tfbert_npu.errors import CheckpointError
from tfbert_npu.paths import file_inside, list_files
from tfbert_npu.repository import local_directory

FIVE_FORMATS = {
    "config.json": b'{"model_type": "bert"}',
    "vocab.txt": b"[PAD]\n[UNK]\n",
    "README.md": b"---\nlicense: mit\n---\n",
    "model.safetensors": b"s" * 300_000,
    "pytorch_model.bin": b"p" * 300_001,
    "tf_model.h5": b"t" * 300_002,
    "flax_model.msgpack": b"f" * 300_003,
    "onnx/model.onnx": b"o" * 300_004,
}
WANTED = ("config.json", "model.safetensors", "vocab.txt")


@pytest.fixture
def sha(hub: FakeHub) -> str:
    return hub.add("owner/bert").commit(FIVE_FORMATS)


def test_only_the_wanted_files_travel(hub: FakeHub, sha: str) -> None:
    directory = local_directory("owner/bert", WANTED)
    assert list_files(directory) == sorted(WANTED)
    assert (directory / "model.safetensors").read_bytes() == FIVE_FORMATS["model.safetensors"]
    assert hub.downloaded() == sorted(WANTED)
    assert hub.sent_bytes() == sum(len(FIVE_FORMATS[name]) for name in WANTED)


def test_a_second_call_downloads_nothing(hub: FakeHub, sha: str) -> None:
    first = local_directory("owner/bert", WANTED)
    before = hub.sent_bytes()
    assert local_directory("owner/bert", WANTED) == first
    assert hub.sent_bytes() == before


def test_a_chooser_sees_every_file(hub: FakeHub, sha: str) -> None:
    seen: list[str] = []

    def choose(files):
        seen.extend(files)
        return ["vocab.txt"]

    assert list_files(local_directory("owner/bert", choose)) == ["vocab.txt"]
    assert sorted(seen) == sorted(FIVE_FORMATS)


def test_names_with_pattern_characters_are_taken_literally(hub: FakeHub) -> None:
    hub.add("owner/odd").commit({"a[1].txt": b"1", "a1.txt": b"2"})
    assert list_files(local_directory("owner/odd", lambda files: ["a[1].txt"])) == ["a[1].txt"]


def test_a_full_sha_in_the_cache_asks_no_network(hub: FakeHub, sha: str) -> None:
    first = local_directory("owner/bert", WANTED, revision=sha)
    asked = len(hub.requests)
    assert local_directory("owner/bert", WANTED, revision=sha) == first
    assert len(hub.requests) == asked
    hub.stop()
    assert local_directory("owner/bert", WANTED, revision=sha) == first


def test_a_full_sha_with_a_part_in_the_cache_fetches_the_rest(hub: FakeHub, sha: str) -> None:
    local_directory("owner/bert", ("vocab.txt",), revision=sha)
    before = hub.sent_bytes()
    directory = local_directory("owner/bert", WANTED, revision=sha)
    assert list_files(directory) == sorted(WANTED)
    assert hub.sent_bytes() - before == sum(len(FIVE_FORMATS[name]) for name in WANTED[:2])


def test_a_revision_is_pinned(hub: FakeHub, sha: str) -> None:
    repo = hub.repos["owner/bert"]
    repo.commit({**FIVE_FORMATS, "vocab.txt": b"new"})
    repo.refs["v1"] = sha
    assert (local_directory("owner/bert", WANTED) / "vocab.txt").read_bytes() == b"new"
    for revision in ("v1", sha):
        directory = local_directory("owner/bert", WANTED, revision=revision)
        assert directory.name == sha
        assert (directory / "vocab.txt").read_bytes() == FIVE_FORMATS["vocab.txt"]


def test_an_unknown_revision_is_named(hub: FakeHub, sha: str) -> None:
    with pytest.raises(FileNotFoundError, match=r"owner/bert has no revision 'v9'; name one of"):
        local_directory("owner/bert", WANTED, revision="v9")


def test_cache_dir_and_token(hub: FakeHub, tmp_path: Path) -> None:
    hub.add("owner/secret", private=True).commit(FIVE_FORMATS)
    elsewhere = tmp_path / "elsewhere"
    directory = local_directory("owner/secret", WANTED, token=hub.token, cache_dir=elsewhere)
    assert directory.is_relative_to(elsewhere)
    with pytest.raises(FileNotFoundError, match=r"owner/secret is neither .*pass token="):
        local_directory("owner/secret", WANTED)


def test_local_files_only_and_offline_mode(hub: FakeHub, sha: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    first = local_directory("owner/bert", WANTED)
    asked = len(hub.requests)
    assert local_directory("owner/bert", WANTED, local_files_only=True) == first
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert local_directory("owner/bert", WANTED) == first
    assert len(hub.requests) == asked


def test_offline_with_an_incomplete_cache_names_what_is_missing(hub: FakeHub, sha: str) -> None:
    local_directory("owner/bert", ("config.json",))
    with pytest.raises(
        FileNotFoundError, match=r"only a part of owner/bert, model.safetensors, vocab.txt missing"
    ):
        local_directory("owner/bert", WANTED, local_files_only=True)


def test_offline_with_an_empty_cache(hub: FakeHub) -> None:
    with pytest.raises(FileNotFoundError, match=r"owner/none is not in the cache; run once with network"):
        local_directory("owner/none", WANTED, local_files_only=True)
    assert not hub.requests


def test_a_missing_repository(hub: FakeHub) -> None:
    with pytest.raises(
        FileNotFoundError, match=r"owner/none is neither a directory nor a repository on http"
    ):
        local_directory("owner/none", WANTED)
    with pytest.raises(FileNotFoundError, match=r"owner/none is neither"):
        local_directory("owner/none", WANTED, token=hub.token)


def test_a_gated_repository(hub: FakeHub, cache: Path) -> None:
    hub.add("owner/gated", gated=True).commit(FIVE_FORMATS)
    with pytest.raises(
        PermissionError, match=r"owner/gated is gated; accept its terms on http.*/owner/gated"
    ):
        local_directory("owner/gated", WANTED)
    assert not [path for path in cache.rglob("*") if "snapshots" in path.parts and path.is_file()]
    assert list_files(local_directory("owner/gated", WANTED, token=hub.token)) == sorted(WANTED)


def test_no_network_and_nothing_cached(hub: FakeHub, cache: Path) -> None:
    hub.stop()
    with pytest.raises(
        ConnectionError, match=r"the cache holds no complete copy of owner/bert; check the net"
    ):
        local_directory("owner/bert", WANTED)
    assert not list(cache.rglob("*/snapshots/*"))


def test_no_network_falls_back_on_a_complete_cache_and_says_so(
    hub: FakeHub, sha: str, caplog: pytest.LogCaptureFixture
) -> None:
    first = local_directory("owner/bert", WANTED)
    hub.stop()
    with caplog.at_level(logging.WARNING, logger="tfbert_npu"):
        assert local_directory("owner/bert", WANTED) == first
    assert "owner/bert is taken from the cache" in caplog.text
    with pytest.raises(ConnectionError, match="no complete copy"):
        local_directory("owner/bert", (*WANTED, "tf_model.h5"))


def test_a_broken_download_resumes_where_it_broke(hub: FakeHub) -> None:
    from huggingface_hub.constants import DOWNLOAD_CHUNK_SIZE  # what is written at once

    weights = os.urandom(DOWNLOAD_CHUNK_SIZE + 200_000)
    hub.add("owner/large").commit({"model.safetensors": weights})
    hub.cut["model.safetensors"] = DOWNLOAD_CHUNK_SIZE + 100_000
    directory = local_directory("owner/large", WANTED)
    assert (directory / "model.safetensors").read_bytes() == weights
    gets = [r for r in hub.requests if r.method == "GET" and r.path.startswith("/blob/")]
    assert [(r.range, r.sent) for r in gets] == [
        (None, DOWNLOAD_CHUNK_SIZE + 100_000),
        (f"bytes={DOWNLOAD_CHUNK_SIZE}-", 200_000),
    ]


def test_a_listing_that_climbs_out_is_refused(hub: FakeHub, cache: Path, tmp_path: Path) -> None:
    hub.add("owner/evil").commit({"config.json": b"{}", "../../../../escaped.txt": b"boo"})
    with pytest.raises(CheckpointError, match=r"lists the file '\.\./\.\./"):
        local_directory("owner/evil", ("*",))
    assert not list(tmp_path.rglob("escaped.txt"))


def test_the_environment_is_obeyed(hub: FakeHub, sha: str, tmp_path: Path) -> None:
    """HF_ENDPOINT, HF_HUB_CACHE and HF_HUB_OFFLINE, read as a user's process reads them."""
    code = (
        f"from tfbert_npu.repository import local_directory\nprint(local_directory('owner/bert', {WANTED!r}))"
    )
    cache = tmp_path / "from-environment"
    env = {**os.environ, "HF_ENDPOINT": hub.url, "HF_HUB_CACHE": str(cache), "HF_HUB_OFFLINE": "0"}

    def run(**more: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-c", code], env={**env, **more}, capture_output=True, text=True, check=False
        )

    online = run()
    assert online.returncode == 0, online.stderr
    assert Path(online.stdout.strip()).is_relative_to(cache)
    hub.stop()
    assert run(HF_HUB_OFFLINE="1").stdout == online.stdout
    nothing = run(HF_HUB_OFFLINE="1", HF_HUB_CACHE=str(tmp_path / "empty"))
    assert "FileNotFoundError: owner/bert is not in the cache" in nothing.stderr


# -- local directories and the names inside them


def test_a_local_directory_is_taken_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    assert local_directory(tmp_path, WANTED) == tmp_path

    def choose(files):
        assert list(files) == ["config.json"]
        raise CheckpointError("no weights")

    with pytest.raises(CheckpointError, match="no weights"):
        local_directory(tmp_path, choose)


@pytest.mark.parametrize("name", ["/nowhere/at/all", "./none", "a/b/c", "a b", ""])
def test_neither_directory_nor_repository(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    if not name:
        assert local_directory(name, WANTED) == Path(".")  # what pathlib and the shell mean by it
        return
    with pytest.raises(FileNotFoundError, match="neither a directory nor a hub repository id"):
        local_directory(name, WANTED)


def test_list_files_is_bounded(tmp_path: Path) -> None:
    deep = tmp_path / "a/b/c/d/e/f"
    deep.mkdir(parents=True)
    (deep / "too-deep").touch()
    (tmp_path / "a/b/c/d/here").touch()
    (tmp_path / ".git").mkdir()
    (tmp_path / ".git/config").touch()
    assert list_files(tmp_path) == ["a/b/c/d/here"]


@pytest.mark.parametrize(
    "name",
    [
        "../secret",
        "a/../../secret",
        "/etc/passwd",
        "C:\\secret",
        "..\\secret",
        "\\\\host\\x",
        "",
        ".",
        "a\0b",
    ],
)
def test_names_that_leave_the_directory_are_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="not a path inside it"):
        file_inside(tmp_path, name)


def test_links_that_leave_the_directory_are_refused(tmp_path: Path) -> None:
    model = tmp_path / "model"
    (model / "sub").mkdir(parents=True)
    (tmp_path / "secret").write_text("s")
    (model / "link").symlink_to("../secret")
    (model / "folder").symlink_to(tmp_path)
    (model / "within").symlink_to("sub/real")
    (model / "sub/real").write_text("r")
    assert file_inside(model, "within").read_text() == "r"
    for name in ("link", "folder/secret"):
        with pytest.raises(CheckpointError, match="leads out of its directory"):
            file_inside(model, name)
    (model / "loop").symlink_to("loop")
    with pytest.raises(CheckpointError):
        file_inside(model, "loop").resolve(strict=True)


def test_the_links_of_the_hub_cache_are_followed(hub: FakeHub, sha: str) -> None:
    directory = local_directory("owner/bert", WANTED)
    assert (directory / "model.safetensors").is_symlink()
    assert file_inside(directory, "model.safetensors").is_file()
    (directory / "stray").symlink_to("/etc/hostname")
    with pytest.raises(CheckpointError, match="leads out"):
        file_inside(directory, "stray")


@given(st.lists(st.sampled_from(["..", ".", "a", "b.txt", "", "/", "\\", "~", "C:"]), max_size=6))
def test_no_name_reaches_out(parts: list[str]) -> None:
    directory = Path("/a-directory-that-is-not-there/model")
    try:
        path = file_inside(directory, "/".join(parts))
    except CheckpointError:
        return
    assert os.path.normpath(path).startswith(str(directory) + "/")
