"""Finding and installing the toolchain, with a fake Python that does what venv and pip would."""

from __future__ import annotations

import re
import sys
import textwrap
from importlib.resources import files

import pytest

from tfbert_npu.rknn.toolchain import find_toolchain, install_toolchain, toolchain_directory
from tfbert_npu.rknn.toolchain.environment import MARKER, VARIABLE, ToolchainError, read_marker

PACKAGE = files("tfbert_npu.rknn.toolchain")


@pytest.fixture(autouse=True)
def elsewhere(monkeypatch, tmp_path):
    """No toolchain of this machine is in sight."""
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.delenv(VARIABLE, raising=False)


@pytest.fixture
def base_python(tmp_path):
    """An interpreter that makes environments of itself, and writes down what pip is asked for."""
    path = tmp_path / "python"
    log = tmp_path / "calls"
    path.write_text(
        textwrap.dedent(
            f"""\
            #!{sys.executable}
            import json, os, shutil, sys
            arguments = sys.argv[1:]
            with open({str(log)!r}, "a") as stream:
                stream.write(" ".join(arguments).replace("\\n", " ") + "\\n")
            if arguments[:2] == ["-m", "venv"]:
                os.makedirs(os.path.join(arguments[2], "bin"))
                shutil.copy(sys.argv[0], os.path.join(arguments[2], "bin", "python"))
            elif arguments[:2] == ["-m", "pip"]:
                if os.path.exists({str(tmp_path / "offline")!r}):
                    sys.exit("ERROR: Could not find a version that satisfies the requirement rknn-toolkit2")
            elif "version_info" in arguments[-1]:
                print("3 11")
            elif "importlib.metadata" in arguments[-1]:
                print(json.dumps({{"toolkit": "2.5.0", "torch": None, "numpy": "1", "onnx": "1",
                                  "python": "3.11.7", "machine": "x86_64"}}))
            """
        )
    )
    path.chmod(0o755)
    return path


def calls(tmp_path):
    return (tmp_path / "calls").read_text().splitlines()


@pytest.mark.parametrize("version", ["2.5.0", "2.3.2"])
def test_requirements_are_pinned_by_hash_and_bring_neither_torch_nor_cuda(version):
    text = (PACKAGE / f"requirements-{version}.txt").read_text()
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    names, name = {}, ""
    for line in lines:  # a requirement, and then its hashes
        part = line.removesuffix("\\").strip()
        if part.startswith("--hash="):
            assert re.fullmatch(r"--hash=sha256:[0-9a-f]{64}", part)
            names[name].append(part)
        else:
            assert re.fullmatch(r"[A-Za-z0-9_.-]+==[0-9.]+", part)
            name = part.partition("==")[0]
            names[name] = []
    assert f"rknn-toolkit2=={version}" in text
    assert len(names) >= 13
    assert all(names.values())  # pip then takes nothing whose hash is not here
    assert not {"torch", "opencv-python", "nvidia"} & names.keys()


def test_torch_is_the_wheel_for_the_cpu():
    text = (PACKAGE / "requirements-torch.txt").read_text()
    assert re.search(r"^torch==[0-9.]+\+cpu$", text, re.MULTILINE)
    assert "https://download.pytorch.org/whl/cpu" in text


def test_without_a_toolchain_the_command_is_named():
    with pytest.raises(ToolchainError, match="run `tfbert-npu toolchain install`"):
        find_toolchain()
    with pytest.raises(ToolchainError, match=r"install --version 2\.3\.2"):
        find_toolchain(version="2.3.2")
    with pytest.raises(ValueError, match=r"'2\.5\.0', '2\.3\.2'"):
        find_toolchain(version="1.6.0")


def test_a_python_without_the_toolkit_is_no_toolchain(monkeypatch, tmp_path):
    with pytest.raises(ToolchainError, match="has no rknn-toolkit2"):
        find_toolchain(sys.executable)
    monkeypatch.setenv(VARIABLE, sys.executable)
    with pytest.raises(ToolchainError, match="has no rknn-toolkit2"):
        find_toolchain()
    with pytest.raises(ToolchainError, match="does not exist"):
        find_toolchain(tmp_path)
    (tmp_path / "text").write_text("no program")
    with pytest.raises(ToolchainError, match="no working Python interpreter"):
        find_toolchain(tmp_path / "text")


def test_install_is_idempotent_and_never_lets_pip_choose(base_python, tmp_path, monkeypatch):
    said = []
    found = install_toolchain(base_python=base_python, on_progress=said.append)
    assert found.version == "2.5.0"
    assert found.python == toolchain_directory() / "bin" / "python"
    pip = [call for call in calls(tmp_path) if "pip install" in call]
    assert len(pip) == 1
    assert "--no-deps" in pip[0]
    assert "--only-binary=:all:" in pip[0]
    assert len(said) == 3
    assert find_toolchain() == found
    before = len(calls(tmp_path))
    assert install_toolchain(base_python=base_python) == found
    assert not [call for call in calls(tmp_path)[before:] if "-m" in call.split()]
    monkeypatch.setenv(VARIABLE, str(toolchain_directory()))
    assert find_toolchain() == found
    with pytest.raises(ToolchainError, match=r"has rknn-toolkit2 2\.5\.0, not 2\.3\.2"):
        find_toolchain(version="2.3.2")


def test_another_set_of_requirements_makes_the_environment_anew(base_python, tmp_path):
    install_toolchain(base_python=base_python)
    (toolchain_directory() / "stale").touch()
    install_toolchain(base_python=base_python, with_torch=True)
    assert not (toolchain_directory() / "stale").exists()
    assert "requirements-torch.txt" in calls(tmp_path)[-3]


def test_a_failed_install_names_the_log_and_is_made_anew(base_python, tmp_path):
    (tmp_path / "offline").touch()
    with pytest.raises(ToolchainError, match=r"install\.log: ERROR: Could not find a version"):
        install_toolchain(base_python=base_python)
    assert (toolchain_directory() / MARKER).is_file()
    assert read_marker(toolchain_directory()) == {}
    with pytest.raises(ToolchainError, match="toolchain install"):
        find_toolchain()
    (tmp_path / "offline").unlink()
    assert install_toolchain(base_python=base_python).version == "2.5.0"


def test_what_is_not_ours_is_not_touched(base_python, tmp_path):
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    (theirs / "thesis.txt").touch()
    with pytest.raises(ToolchainError, match="is no toolchain"):
        install_toolchain(directory=theirs, base_python=base_python)
    assert (theirs / "thesis.txt").exists()
    empty = tmp_path / "empty"
    empty.mkdir()
    assert install_toolchain(directory=empty, base_python=base_python).python.parent.parent == empty


def test_a_python_of_another_age_is_refused(base_python):
    base_python.write_text(base_python.read_text().replace('"3 11"', '"3 13"'))
    with pytest.raises(ToolchainError, match=r"Python 3\.13.*--base-python"):
        install_toolchain(base_python=base_python)


def test_stand_ins_refuse_what_nobody_should_ask_of_them():
    import subprocess

    folder = str(PACKAGE / "standins")
    for code, message in (
        ("import torch; torch.cuda", "needs the real torch"),
        ("import torch.nn as nn; nn.Module()", "needs the real torch"),
        ("import cv2; cv2.imread", "opencv-python-headless"),
    ):
        script = f"import sys; sys.path.insert(0, {folder!r}); {code}"
        done = subprocess.run(
            [sys.executable, "-S", "-c", script], capture_output=True, text=True, check=False
        )
        assert message in done.stderr
