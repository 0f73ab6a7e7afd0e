"""What was there before is there after, or the new one whole: devices, links, permissions, full disks, signals."""

from __future__ import annotations

import errno
import os
import resource
import signal
import stat
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner

from tests import tiny_bert
from tfbert_npu import BertForSequenceClassification, export_onnx
from tfbert_npu._failed_writes import explaining_failed_write
from tfbert_npu._files import _owner, replacing
from tfbert_npu.cli import cli
from tfbert_npu.errors import FailedWriteError


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    tiny_bert.write_checkpoint(folder / "checkpoint")
    export_onnx(folder / "checkpoint", folder / "encoder")
    model = BertForSequenceClassification(tiny_bert.config(), labels=("bad", "good"))
    model.save_pretrained(folder / "headed")
    tiny_bert.tokenizer().save_pretrained(folder / "headed")
    export_onnx(folder / "headed", folder / "classifier")
    (folder / "texts").write_text("the cat sat\na dog\n" * 400)
    (folder / "train.csv").write_text("text,label\n" + "a good cat,good\na bad dog,bad\n" * 20)
    return folder


def write(path: Path, content: str) -> None:
    with replacing(path) as temporary:
        temporary.write_text(content)


# The commands that write a file, by what they write.
COMMANDS: dict[str, Callable[[Path, str], list[str]]] = {
    "embed": lambda models, out: [
        "embed", str(models / "encoder"), "--input", str(models / "texts"), "--output", out,
        "--format", "jsonl", "--pooling", "mean",
    ],
    "evaluate": lambda models, out: [
        "evaluate", "classify", str(models / "classifier"), "--data", str(models / "train.csv"),
        "--predictions", out, "--overwrite",
    ],
}  # fmt: skip


def invoke(command: str, models: Path, out: Path) -> None:
    result = CliRunner().invoke(cli, COMMANDS[command](models, str(out)))
    assert result.exit_code == 0, result.exception


@pytest.mark.parametrize("command", COMMANDS)
def test_a_pipe_gets_what_is_written(models: Path, tmp_path: Path, command: str) -> None:
    pipe, read = tmp_path / "pipe", []
    os.mkfifo(pipe)
    reader = threading.Thread(target=lambda: read.append(pipe.read_text()), daemon=True)
    reader.start()
    invoke(command, models, pipe)
    reader.join(20)
    assert read[0].count("\n") == {"embed": 800, "evaluate": 40}[command]
    assert stat.S_ISFIFO(pipe.stat().st_mode)


@pytest.mark.parametrize("command", COMMANDS)
def test_a_device_stays_one(models: Path, tmp_path: Path, command: str) -> None:
    device = tmp_path / "null"
    try:
        os.mknod(device, stat.S_IFCHR | 0o666, os.makedev(1, 3))
        device.write_bytes(b"")
    except OSError as error:
        pytest.skip(f"no device can be made here: {error}")
    invoke(command, models, device)
    assert stat.S_ISCHR(device.stat().st_mode)


@pytest.mark.parametrize("command", COMMANDS)
def test_a_link_is_followed_and_stays(models: Path, tmp_path: Path, command: str) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "file").write_text("old")
    link = tmp_path / "link"
    link.symlink_to("real/file")
    invoke(command, models, link)
    assert link.is_symlink()
    assert (tmp_path / "real" / "file").read_text().count("\n") > 30


def test_permissions_and_owner_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "private"
    path.write_text("old")
    path.chmod(0o640)
    if os.geteuid() == 0:
        os.chown(path, 1234, 4321)
    before = path.stat()
    write(path, "new")
    after = path.stat()
    assert path.read_text() == "new"
    assert (after.st_mode, after.st_uid, after.st_gid) == (before.st_mode, before.st_uid, before.st_gid)


def test_a_new_file_has_the_permissions_of_the_umask(tmp_path: Path) -> None:
    kept = os.umask(0o027)
    try:
        write(tmp_path / "new", "x")
    finally:
        os.umask(kept)
    assert stat.S_IMODE((tmp_path / "new").stat().st_mode) == 0o640


def test_a_dangling_link_makes_its_file(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("file")
    write(tmp_path / "link", "new")
    assert (tmp_path / "file").read_text() == "new"
    assert (tmp_path / "link").is_symlink()


def test_a_directory_is_refused(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    with pytest.raises(IsADirectoryError, match="a directory is there"):
        write(tmp_path / "there", "x")


def test_only_a_dead_process_of_the_same_owner_is_cleaned_up_after(tmp_path: Path) -> None:
    dead = subprocess.run(
        [sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, check=True
    )
    number = int(dead.stdout)
    kept = (
        f".file.{_owner()}.{os.getppid()}-abcdefgh",
        f".file.other000.{number}-abcdefgh",
        ".file.abcdefgh",
    )
    for name in (f".file.{_owner()}.{number}-abcdefgh", *kept):
        (tmp_path / name).write_text("half")
    write(tmp_path / "file", "new")
    assert {path.name for path in tmp_path.iterdir()} == {"file", *kept}


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "no space left on device"),
        (OSError(errno.EDQUOT, "Disk quota exceeded"), "disk quota exceeded"),
        (OSError(errno.EROFS, "Read-only file system", "{}/file"), "read-only file system"),
        (PermissionError(errno.EACCES, "Permission denied", "{}/.file.x"), "permission denied"),
        (RuntimeError("I/O error: No space left on device (os error 28)"), "no space left on device"),
        (ValueError("{{node Save}} events.out; File too large"), "file too large"),
    ],
)
def test_what_says_that_a_disk_is_full(tmp_path: Path, error: Exception, reason: str) -> None:
    """safetensors, TensorFlow and h5py each have an error of their own."""
    if isinstance(error, OSError) and error.filename:
        error.filename = error.filename.format(tmp_path)
    with pytest.raises(FailedWriteError) as caught, explaining_failed_write(tmp_path / "file"):
        raise error
    assert str(caught.value).startswith(f"{tmp_path / 'file'} could not be written ({reason}); ")
    assert isinstance(caught.value, OSError)


@pytest.mark.parametrize(
    "error",
    [
        PermissionError(errno.EACCES, "Permission denied", "/elsewhere/texts"),
        FileNotFoundError(errno.ENOENT, "No such file", "texts"),
        ValueError("another matter"),
    ],
)
def test_an_error_of_something_else_stays_as_it_is(tmp_path: Path, error: Exception) -> None:
    with pytest.raises(type(error)) as caught, explaining_failed_write(tmp_path / "file"):
        raise error
    assert caught.value is error


def small_files_only() -> None:
    """Let no file grow beyond 4 kB: what a full disk does, for anybody to try."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (4_000, 4_000))


SAVE = (
    "import sys; from tests import tiny_bert; from tfbert_npu import BertEncoder\n"
    "try: BertEncoder(tiny_bert.config()).save_pretrained(sys.argv[1])\n"
    "except OSError as error: sys.exit(f'tfbert-npu: {error}')\n"
)
FULL = {
    "embed": lambda models, out: ["-m", "tfbert_npu", *COMMANDS["embed"](models, f"{out}/vectors.jsonl")],
    "vocab": lambda models, out: [
        "-m", "tfbert_npu", "vocab", str(models / "many"), "--out", f"{out}/new", "--size", "2000",
    ],
    "onnx": lambda models, out: ["-m", "tfbert_npu", "export", "onnx", str(models / "checkpoint"), f"{out}/m"],
    "saved-model": lambda models, out: [
        "-m", "tfbert_npu", "export", "saved-model", str(models / "checkpoint"), f"{out}/m",
    ],
    "train": lambda models, out: [
        "-m", "tfbert_npu", "train", str(models / "checkpoint"), "--task", "classify", "--train",
        str(models / "train.csv"), "--seq-length", "16", "--epochs", "1", "--out", f"{out}/mine",
    ],
    "save_pretrained": lambda models, out: ["-c", SAVE, f"{out}/mine"],
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("what", FULL)
def test_a_full_disk_is_one_line(models: Path, tmp_path: Path, what: str) -> None:
    (models / "many").write_text(" ".join(f"{n:x}word{n}" for n in range(3000)))
    done = subprocess.run(
        [sys.executable, *FULL[what](models, tmp_path)],
        capture_output=True, text=True, check=False, preexec_fn=small_files_only,
    )  # fmt: skip
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr
    assert "could not be written (file too large); raise the limit" in done.stderr.splitlines()[-1]
    assert str(tmp_path) in done.stderr.splitlines()[-1]
    left = {path.name for path in tmp_path.rglob("*") if path.is_file()}
    # What `train` has saved by then is whole, and the next run goes on from it.
    assert not [
        name for name in left if name.startswith(".") or name.endswith(("jsonl", "safetensors", "onnx"))
    ]


# Runs a command and stops where a function of it is called, to be killed there.
HELD = textwrap.dedent("""
    import importlib, signal, sys, time
    signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored in a shell's background jobs
    from tfbert_npu.cli import main
    module, name = sys.argv[1].rsplit(".", 1)
    def hold(*arguments, **options):
        print("ready", flush=True)
        time.sleep(60)
    setattr(importlib.import_module(module), name, hold)
    sys.argv = ["tfbert-npu", *sys.argv[2:]]
    main()
""")


def stopped(models: Path, arguments: list[str], hold: str, number: int) -> tuple[int, str]:
    process = subprocess.Popen(
        [sys.executable, "-c", HELD, hold, *arguments],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stderr is not None
    for line in process.stdout:
        if line == "ready\n":
            break
    process.send_signal(number)
    said = process.stderr.read()
    return process.wait(30), said


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
@pytest.mark.parametrize("command", ["embed", "onnx", "saved-model", "train"])
def test_a_signal_leaves_the_old_file(models: Path, tmp_path: Path, command: str, number: int) -> None:
    out = tmp_path / "out"
    arguments = {
        "embed": COMMANDS["embed"](models, str(out)),
        "onnx": ["export", "onnx", str(models / "checkpoint"), str(out), "--overwrite"],
        "saved-model": ["export", "saved-model", str(models / "checkpoint"), str(out), "--overwrite"],
        "train": [*FULL["train"](models, tmp_path)[2:-1], str(out)],
    }[command]
    hold = {
        "embed": "tfbert_npu.tasks.sentence_encoder.as_function",
        "onnx": "onnx.save",
        "saved-model": "tensorflow.saved_model.save",
        "train": "tfbert_npu.train.state.save_file",
    }[command]
    if command == "embed":
        out.write_text("old")
    elif command != "train":
        out.mkdir()
        (out / "old").write_text("old")
    code, said = stopped(models, arguments, hold, number)
    if number != signal.SIGKILL:
        assert code == {signal.SIGTERM: 143, signal.SIGINT: 130}[number], said
        assert "stopped" in said
        assert "Traceback" not in said
        assert {path.name for path in tmp_path.rglob("*")} <= {"out", "old", "split.json", "training.lock"}
    if command == "embed":
        assert out.read_text() == "old"
    elif command != "train":
        assert (out / "old").read_text() == "old"
    if command != "train" and number != signal.SIGKILL:
        assert [path.name for path in tmp_path.iterdir()] == ["out"]  # nothing is left to clear away
        return
    # Whatever was left, the next run ends as if nothing had been, and clears it away.
    result = subprocess.run(
        [sys.executable, "-m", "tfbert_npu", *arguments], capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    assert {path.name for path in tmp_path.iterdir()} == {"out"}
    assert not [path for path in tmp_path.rglob(".*") if _owner() in path.name]
