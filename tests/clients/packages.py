"""Packages of another version than ours, kept in the user's cache; the rest comes from this environment."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

STUB = Path(__file__).parent / "stub"
ROOT = Path(__file__).resolve().parents[2]


def packages(*wanted: str) -> Path:
    """A folder for PYTHONPATH that holds these requirements, without what they depend on."""
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tfbert-npu"
    key = hashlib.sha256("\n".join((sys.version, *wanted)).encode()).hexdigest()[:12]
    home = base / f"client-{key}"
    if not home.is_dir():
        base.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix="client.", dir=base) as scratch:
            made = Path(scratch) / "made"
            command = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", str(made)]
            done = subprocess.run([*command, *wanted], capture_output=True, text=True, check=False)
            if done.returncode:
                pytest.skip(f"{wanted[0]} cannot be installed here: {done.stderr.strip()[-200:]}")
            try:
                made.rename(home)
            except OSError:  # somebody else was faster
                if not home.is_dir():
                    raise
    return home


def run(code: str, *arguments: str, path: Path, timeout: float = 300) -> str:
    """Run a program with these packages, and with the double in place of the vendor's wheel."""
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        cwd=ROOT,
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join(map(str, (STUB, path, ROOT))),
            "USE_TF": "0",
            "HF_HUB_OFFLINE": "1",
        },
        capture_output=True,
        text=True,
        check=False,
        timeout=timeout,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-6000:]
    return done.stdout
