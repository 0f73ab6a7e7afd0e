"""The fault table: signals, full disks and concurrent runs in rknn export, save_pretrained, push, pull and serve.

embed, export onnx, export saved-model and train are in test_writing.py; two trainings in train/test_safety.py.
"""

from __future__ import annotations

import multiprocessing
import os
import resource
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import tiny_bert
from tests.fakehub import FakeHub
from tfbert_npu import export_onnx
from tfbert_npu._files import replacing
from tfbert_npu.artifact.directory import staged

SIGNALS = {signal.SIGTERM: 143, signal.SIGINT: 130, signal.SIGKILL: -9}

# Runs the command line, or saves a model, and stops where a function of it is called.
HELD = textwrap.dedent("""
    import importlib, os, signal, sys, time
    from pathlib import Path
    signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored in a shell's background jobs
    from tfbert_npu.cli import main
    def hold(*arguments, **options):
        print("ready", flush=True)
        time.sleep(float(os.environ.get("HELD_FOR", 60)))
        return original(*arguments, **options)
    if sys.argv[1] != "-":
        module, name = sys.argv[1].rsplit(".", 1)
        original = getattr(importlib.import_module(module), name)
        setattr(importlib.import_module(module), name, hold)
    if "rknn" in sys.argv:
        import tfbert_npu.export.rknn
        from tfbert_npu.rknn.toolchain import Toolchain
        found = Toolchain(Path(sys.executable), "2.5.0", None, "3.11", "x86_64")
        tfbert_npu.export.rknn.find_toolchain = lambda *_: found
    if sys.argv[2] == "save_pretrained":
        from tests import tiny_bert
        tiny_bert.write_checkpoint(Path(sys.argv[3]))
        sys.exit()
    sys.argv = ["tfbert-npu", *sys.argv[2:]]
    main()
""")


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    tiny_bert.write_checkpoint(folder / "checkpoint")
    export_onnx(folder / "checkpoint", folder / "artifact")
    return folder / "artifact"


@pytest.fixture
def hub(artifact: Path) -> Iterator[FakeHub]:
    with FakeHub() as server:
        files = {path.name: path.read_bytes() for path in artifact.iterdir() if path.is_file()}
        server.add("owner/small").commit(files)
        yield server


def environment(tmp_path: Path, hub: FakeHub | None = None) -> dict[str, str]:
    (tmp_path / "scratch").mkdir(exist_ok=True)
    own = {"TMPDIR": str(tmp_path / "scratch"), "HF_HUB_CACHE": str(tmp_path / "cache")}
    if hub is not None:
        own |= {
            "HF_ENDPOINT": hub.url,
            "HF_HUB_OFFLINE": "0",
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        }
    return {**os.environ, **own}


def stopped(arguments: list[str], hold: str, number: int, env: dict[str, str]) -> tuple[int, str]:
    with subprocess.Popen(
        [sys.executable, "-c", HELD, hold, *arguments],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        assert process.stderr is not None
        if "ready\n" not in process.stdout:
            pytest.fail(process.stderr.read())
        process.send_signal(number)
        said = process.stderr.read()
    return process.returncode, said


def run(
    arguments: list[str], env: dict[str, str], limit: int | None = None
) -> subprocess.CompletedProcess[str]:
    def few() -> None:
        if limit is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    return subprocess.run(
        [sys.executable, "-c", HELD, "-", *arguments],
        capture_output=True, text=True, env=env, preexec_fn=few, check=False,
    )  # fmt: skip


def everything(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.slow
@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_in_export_rknn(artifact: Path, tmp_path: Path, number: int) -> None:
    out, env = tmp_path / "out", environment(tmp_path)
    out.mkdir()
    (out / "old").write_text("old")
    arguments = ["export", "rknn", str(artifact.parent / "checkpoint"), str(out), "--overwrite"]
    arguments += ["--shapes", "1x16"]
    code, said = stopped(arguments, "tfbert_npu.export.rknn.VendorSession", number, env)
    assert code == SIGNALS[number], said
    assert everything(out) == {"old": b"old"}
    assert "Traceback" not in said
    left = {path.name for path in tmp_path.iterdir()} - {"out", "scratch"}
    assert len(left) == (number == signal.SIGKILL), left
    with staged(out, overwrite=True) as staging:  # the next export
        (staging / "new").write_text("new")
    assert everything(out) == {"new": b"new"}
    assert {path.name for path in tmp_path.iterdir()} == {"out", "scratch"}


@pytest.mark.slow
@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_in_save_pretrained(artifact: Path, tmp_path: Path, number: int) -> None:
    """A program of the user's own ends by SIGTERM as by SIGKILL; the next run clears what is left."""
    out, env = tmp_path / "out", environment(tmp_path)
    tiny_bert.write_checkpoint(out)
    before = everything(out)
    hold = "tfbert_npu.checkpoints.pretrained.save_file"
    _, said = stopped(["save_pretrained", str(out)], hold, number, env)
    after = everything(out)
    assert {name: after[name] for name in before} == before
    assert (len(after) == len(before)) == (number == signal.SIGINT), said
    tiny_bert.write_checkpoint(out)
    assert everything(out).keys() == before.keys()


@pytest.mark.slow
@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_in_push(artifact: Path, tmp_path: Path, number: int) -> None:
    env, before = environment(tmp_path), everything(artifact)
    arguments = ["push", str(artifact), "owner/name", "--dry-run"]
    code, said = stopped(arguments, "tfbert_npu.hub.push.make_card", number, env)
    assert code == SIGNALS[number], said
    assert "Traceback" not in said
    left = [path for path in (tmp_path / "scratch").iterdir() if path.name.startswith(".tfbert-npu.")]
    assert len(left) == (number == signal.SIGKILL)
    assert run(arguments, env).returncode == 0
    assert not list((tmp_path / "scratch").glob(".tfbert-npu.*"))
    assert everything(artifact) == before


def embed(tmp_path: Path) -> list[str]:
    (tmp_path / "texts").write_text("the cat sat\n")
    return ["embed", "owner/small", "--input", str(tmp_path / "texts"), "--pooling", "mean"]


@pytest.mark.slow
@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_in_pull(hub: FakeHub, tmp_path: Path, number: int) -> None:
    env, arguments = environment(tmp_path, hub), embed(tmp_path)
    env["HELD_FOR"] = "2"  # the downloading threads end by themselves
    code, said = stopped(arguments, "huggingface_hub.file_download._chmod_and_move", number, env)
    assert code == SIGNALS[number], said
    assert "Traceback" not in said
    # What came so far has a name of huggingface_hub's, "*.incomplete", and is left in its cache.
    whole = hub.repos["owner/small"].files()
    for path in (tmp_path / "cache").rglob("snapshots/*/*"):
        assert path.read_bytes() == whole[path.name]
    done = run(arguments, env)
    assert done.returncode == 0, done.stderr
    assert '"embedding"' in done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_a_signal_in_serve(artifact: Path, tmp_path: Path, number: int) -> None:
    """SIGTERM is in test_serve.py; it answers what it took."""
    before = everything(artifact)
    with subprocess.Popen(
        [sys.executable, "-c", HELD, "-", "serve", str(artifact), "--port", "0"],
        stderr=subprocess.PIPE, text=True, env=environment(tmp_path),
    ) as process:  # fmt: skip
        assert process.stderr is not None
        said = ""
        while "serving on" not in said:
            line = process.stderr.readline()
            assert line, said
            said += line
        process.send_signal(number)
        said += process.stderr.read()
    assert process.returncode in {signal.SIGINT: (0, 130), signal.SIGKILL: (-9,)}[number], said
    assert "Traceback" not in said
    assert everything(artifact) == before
    assert not list((tmp_path / "scratch").glob(".tfbert-npu.*"))


@pytest.mark.slow
def test_a_full_disk_in_push_pull_and_export_rknn(artifact: Path, hub: FakeHub, tmp_path: Path) -> None:
    env, before = environment(tmp_path, hub), everything(artifact)
    commands = {
        "push": (["push", str(artifact), "owner/name", "--dry-run"], tmp_path / "scratch", 100),
        "pull": (embed(tmp_path), tmp_path / "cache", 2_000),
        "rknn": (
            [
                "export",
                "rknn",
                str(artifact.parent / "checkpoint"),
                str(tmp_path / "out"),
                "--shapes",
                "1x16",
            ],
            tmp_path / "out",
            4_000,
        ),
    }
    for arguments, named, limit in commands.values():
        done = run(arguments, env, limit)
        assert done.returncode == 1, done.stderr
        assert "Traceback" not in done.stderr
        last = done.stderr.splitlines()[-1]
        assert str(named) in last
        assert "could not be written (file too large); raise the limit" in last
    assert everything(artifact) == before
    assert not list((tmp_path / "scratch").glob(".tfbert-npu.*"))
    assert not (tmp_path / "out").exists()


def _write_directory(out: Path, number: int, times: int) -> None:
    for _ in range(times):
        with staged(out, overwrite=True) as staging:
            for name in "ab":
                (staging / name).write_text(f"{number}")


def _write_file(out: Path, number: int, times: int) -> None:
    for _ in range(times):
        with replacing(out) as temporary:
            temporary.write_text(f"{number}" * 1000)


@pytest.mark.parametrize("write", [_write_directory, _write_file])
def test_concurrent_runs_leave_one_whole(tmp_path: Path, write: object) -> None:
    context = multiprocessing.get_context("fork")
    out = tmp_path / "out"
    processes = [context.Process(target=write, args=(out, number, 50)) for number in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0] * 4
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    if write is _write_directory:
        assert len(everything(out)) == 2
        assert len(set(everything(out).values())) == 1
    else:
        assert len(set(out.read_text())) == 1
        assert len(out.read_text()) == 1000
