"""Writing where something special is: descriptors, sockets, linked directories, what cannot be written."""

from __future__ import annotations

import errno
import os
import resource
import socket
import stat
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import pytest
from click.testing import CliRunner

from tests import tiny_bert
from tfbert_npu import BertEncoder, BertForSequenceClassification
from tfbert_npu._failed_writes import explaining_failed_write, make_directory
from tfbert_npu._files import _owner, replacing, scratch_directory
from tfbert_npu.artifact.directory import staged
from tfbert_npu.cli import cli
from tfbert_npu.errors import FailedWriteError

WRITE = "import sys; from tfbert_npu._files import replacing\nwith replacing(sys.argv[1]) as t: t.write_text('new')\n"


def write(path: str | Path, content: str = "new") -> None:
    with replacing(path) as temporary:
        temporary.write_text(content)


@pytest.fixture
def dead() -> int:
    """The number of a process that has ended."""
    done = subprocess.run(
        [sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, check=True
    )
    return int(done.stdout)


@pytest.mark.parametrize("name", ["/dev/stdout", "/dev/fd/1", "/proc/self/fd/1"])
def test_standard_output_by_name(tmp_path: Path, name: str) -> None:
    """Also where it is a pipe, to which no name leads, or a file that something is in already."""
    piped = subprocess.run([sys.executable, "-c", WRITE, name], capture_output=True, text=True, check=False)
    assert (piped.stdout, piped.stderr) == ("new", "")
    file = tmp_path / "file"
    file.write_text("old ")
    with file.open("a") as stream:
        subprocess.run([sys.executable, "-c", WRITE, name], stdout=stream, check=True)
    assert file.read_text() == "old new"


def test_a_socket_gets_what_is_written(tmp_path: Path) -> None:
    path, got = tmp_path / "socket", []

    def serve() -> None:
        connection, _ = listener.accept()
        with connection, connection.makefile("rb") as stream:
            got.append(stream.read())

    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        reader = threading.Thread(target=serve, daemon=True)
        reader.start()
        write(path)
        reader.join(20)
    assert got == [b"new"]
    assert stat.S_ISSOCK(path.stat().st_mode)


def test_a_full_device_is_one_sentence() -> None:
    with pytest.raises(FailedWriteError) as caught:
        write("/dev/full")
    assert str(caught.value) == (
        "/dev/full could not be written (no space left on device); free some space or choose another place"
    )
    assert stat.S_ISCHR(os.stat("/dev/full").st_mode)


def test_a_missing_directory_is_named(tmp_path: Path) -> None:
    with pytest.raises(
        FileNotFoundError, match=f"the directory {tmp_path}/none does not exist; make it first"
    ):
        write(tmp_path / "none" / "file")


def test_a_directory_keeps_link_and_permissions(tmp_path: Path) -> None:
    real, link = tmp_path / "real", tmp_path / "link"
    real.mkdir()
    real.chmod(0o700)
    if os.geteuid() == 0:
        os.chown(real, 1234, 4321)
    before = real.stat()
    link.symlink_to("real")
    with staged(link, overwrite=True) as staging:
        (staging / "file").write_text("new")
    assert link.is_symlink()
    assert (real / "file").read_text() == "new"
    after = real.stat()
    assert (after.st_mode, after.st_uid, after.st_gid) == (before.st_mode, before.st_uid, before.st_gid)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["link", "real"]


def test_scratch_directories_of_killed_processes_are_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dead: int
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    (tmp_path / f".tfbert-npu.{_owner()}.{dead}-abcdefgh").mkdir()
    running = tmp_path / f".tfbert-npu.{_owner()}.{os.getppid()}-abcdefgh"
    running.mkdir()
    with scratch_directory() as scratch:
        assert set(tmp_path.iterdir()) == {running, Path(scratch)}
    assert set(tmp_path.iterdir()) == {running}


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make files of somebody else")
def test_what_somebody_else_has_put_there_is_left(tmp_path: Path, dead: int) -> None:
    planted = tmp_path / f".out.{_owner()}.{dead}-abcdefgh"
    (planted / "old").mkdir(parents=True)
    os.chown(planted, 1234, 4321)
    with staged(tmp_path / "out", overwrite=False) as staging:
        (staging / "file").write_text("new")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["file"]
    assert (planted / "old").is_dir()


def test_a_file_that_was_read_is_not_taken_for_the_written_one(tmp_path: Path) -> None:
    """It may lie beside it."""
    error = PermissionError(errno.EACCES, "Permission denied", str(tmp_path / "train.csv"))
    with pytest.raises(PermissionError) as caught, explaining_failed_write(tmp_path / "out"):
        raise error
    assert caught.value is error


def test_a_full_disk_elsewhere_names_the_file_there(tmp_path: Path) -> None:
    scratch = "/tmp/.tfbert-npu.0.1-abc/model.onnx"
    with pytest.raises(FailedWriteError) as caught, explaining_failed_write(tmp_path / "out"):
        raise OSError(errno.ENOSPC, "No space left on device", scratch)
    assert str(caught.value) == (
        f"{scratch} could not be written (no space left on device); "
        "free some space or set TMPDIR to another folder"
    )


@pytest.mark.parametrize("number", [errno.EROFS, errno.EACCES, errno.ENOSPC, errno.EDQUOT])
@pytest.mark.parametrize("call", ["mkdir", "mkstemp"])
def test_save_pretrained_where_nobody_may_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, number: int
) -> None:
    """As root may write anywhere, the system's answer is put in its mouth."""
    encoder = BertEncoder(tiny_bert.config(num_hidden_layers=1))

    def refuse(path: object = tmp_path / "mine", *_: object, **options: object) -> None:
        raise OSError(number, os.strerror(number), os.fspath(tmp_path / "mine"))

    monkeypatch.setattr(*{"mkdir": (Path, "mkdir"), "mkstemp": (tempfile, "mkstemp")}[call], refuse)
    if call == "mkstemp":
        (tmp_path / "mine").mkdir()
    with pytest.raises(FailedWriteError, match=r"mine\S* could not be written \(.*\); .*another place"):
        encoder.save_pretrained(tmp_path / "mine")
    assert not list(tmp_path.rglob("*.*"))


SAVED = {
    "vocab": ["vocab", "{texts}", "--out", "{out}", "--size", "40"],
    "onnx": ["export", "onnx", "{model}", "{out}"],
    "onnx file": ["export", "onnx", "{model}", "{out}.onnx"],
    "saved-model": ["export", "saved-model", "{model}", "{out}"],
    "train": [
        "train",
        "{model}",
        "--task",
        "classify",
        "--train",
        "{data}",
        "--seq-length",
        "16",
        "--out",
        "{out}",
    ],
    "embed": ["embed", "{model}", "--input", "{texts}", "--output", "{out}.npy", "--pooling", "mean"],
    "predictions": [
        "evaluate",
        "classify",
        "{headed}",
        "--data",
        "{data}",
        "--seq-length",
        "16",
        "--predictions",
        "{out}",
    ],
}


@pytest.mark.parametrize("command", SAVED)
def test_a_file_for_a_parent_is_one_line(tmp_path: Path, command: str) -> None:
    """Nobody can write below a file, not even root."""
    (tmp_path / "file").write_text("there")
    (tmp_path / "texts").write_text("the cat sat\n" * 9)
    (tmp_path / "data.csv").write_text("text,label\n" + "a,x\nb,y\n" * 8)
    model = tiny_bert.write_checkpoint(tmp_path / "model", num_hidden_layers=1)
    names = {
        "out": tmp_path / "file" / "out", "texts": tmp_path / "texts", "data": tmp_path / "data.csv",
        "model": model, "headed": tmp_path / "headed",
    }  # fmt: skip
    head = BertForSequenceClassification(tiny_bert.config(num_hidden_layers=1), labels=("x", "y"))
    head.save_pretrained(tmp_path / "headed")
    tiny_bert.tokenizer().save_pretrained(tmp_path / "headed")
    before = sorted(tmp_path.rglob("*"))
    result = CliRunner().invoke(cli, [part.format(**names) for part in SAVED[command]])
    assert result.exit_code != 0
    said = str(result.exception) if result.exit_code == 1 else result.output
    assert isinstance(result.exception, (OSError, ValueError, SystemExit)), result.exception
    assert str(tmp_path / "file") in said
    assert "\n" not in said or result.exit_code == 2
    assert sorted(tmp_path.rglob("*")) == before
    assert (tmp_path / "file").read_text() == "there"


def test_a_limit_on_files_is_one_sentence_for_save_pretrained(tmp_path: Path) -> None:
    """safetensors has an error of its own for it; what was there is there after."""
    encoder = BertEncoder(tiny_bert.config(num_hidden_layers=1))
    encoder.save_pretrained(tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4_000, hard))
    try:
        with pytest.raises(
            FailedWriteError, match=r"model\.safetensors could not be written \(file too large\)"
        ):
            encoder.save_pretrained(tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_name_that_is_too_long(tmp_path: Path) -> None:
    with pytest.raises(FailedWriteError, match="file name too long\\); choose a shorter name"):
        make_directory(tmp_path / ("x" * 300))
