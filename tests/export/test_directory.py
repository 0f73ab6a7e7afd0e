"""A directory that is there whole or not at all."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap

import pytest

from tfbert_npu._files import _owner
from tfbert_npu.artifact.directory import staged


def names(path):
    return sorted(entry.name for entry in path.iterdir())


def test_appears_when_the_block_ends(tmp_path):
    target = tmp_path / "deep" / "model"
    with staged(target, overwrite=False) as staging:
        (staging / "a").write_text("1")
        assert not target.exists()
    assert names(target) == ["a"]
    assert names(target.parent) == ["model"]


def test_an_error_leaves_nothing(tmp_path):
    def fail_half_way():
        with staged(tmp_path / "model", overwrite=False) as staging:
            (staging / "a").write_text("1")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail_half_way()
    assert names(tmp_path) == []


def test_what_is_there_is_kept_without_overwrite_and_until_the_end_with_it(tmp_path):
    target = tmp_path / "model"
    target.mkdir()
    (target / "old").write_text("1")
    with pytest.raises(FileExistsError, match="--overwrite"), staged(target, overwrite=False):
        raise AssertionError("the work must not begin")
    with pytest.raises(RuntimeError), staged(target, overwrite=True):
        raise RuntimeError
    assert names(target) == ["old"]
    with staged(target, overwrite=True) as staging:
        (staging / "new").write_text("1")
        assert names(target) == ["old"]
    assert names(target) == ["new"]
    assert names(tmp_path) == ["model"]


def test_a_file_or_a_directory_that_came_to_be_meanwhile_is_not_replaced(tmp_path):
    file = tmp_path / "file"
    file.write_text("mine")
    with pytest.raises(FileExistsError, match="not a directory"), staged(file, overwrite=True):
        pass
    target = tmp_path / "model"

    def come_second():
        with staged(target, overwrite=False) as staging:
            (staging / "a").write_text("1")
            target.mkdir()
            (target / "theirs").write_text("1")

    with pytest.raises(FileExistsError):
        come_second()
    assert names(target) == ["theirs"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_an_unwritable_parent_is_found_at_once(tmp_path):
    tmp_path.chmod(0o500)
    with (
        pytest.raises(PermissionError, match="cannot be written"),
        staged(tmp_path / "model", overwrite=False),
    ):
        pass
    tmp_path.chmod(0o700)


def test_what_a_killed_process_left_is_cleared_away(tmp_path):
    target = tmp_path / "model"
    target.mkdir()
    (target / "old").write_text("1")
    script = textwrap.dedent(
        f"""
        import os, signal
        from pathlib import Path
        from tfbert_npu.artifact.directory import staged
        with staged(Path({str(target)!r}), overwrite=True) as staging:
            (staging / "half").write_text("1")
            os.kill(os.getpid(), signal.SIGKILL)
        """
    )
    done = subprocess.run([sys.executable, "-c", script], check=False)
    assert done.returncode == -signal.SIGKILL
    assert names(target) == ["old"]
    assert len(names(tmp_path)) == 2
    with staged(target, overwrite=True) as staging:
        (staging / "new").write_text("1")
    assert names(tmp_path) == ["model"]
    assert names(target) == ["new"]


def test_killed_between_the_two_renames_the_old_one_comes_back(tmp_path):
    target = tmp_path / "model"
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    aside = tmp_path / f".model.{_owner()}.{dead.pid}-abcd" / "old"
    aside.mkdir(parents=True)
    (aside / "old").write_text("1")
    with pytest.raises(RuntimeError), staged(target, overwrite=True):
        raise RuntimeError
    assert names(target) == ["old"]


def test_what_somebody_else_is_writing_stays(tmp_path):
    """Of another host, container or user, in a folder that all share; here its number is nobody's process."""
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    theirs = [tmp_path / f".model.0123abcd.{dead.pid}-abcd", tmp_path / f".model.{dead.pid}-abcd"]
    for path in theirs:
        path.mkdir()
    with staged(tmp_path / "model", overwrite=True) as staging:
        (staging / "a").write_text("1")
    assert all(path.is_dir() for path in theirs)
