"""Feeds a reader and notes what escapes it."""

from __future__ import annotations

import random
import shutil
import signal
import time
import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.fuzz.mutation import mutate
from tests.fuzz.readers import Reader
from tfbert_npu.errors import TfbertNpuError

_HANG = 10
"""Seconds for one input, on a machine that does other things too."""


class Hang(BaseException):
    """No answer in time; no reader may take it for an error of the file."""


@dataclass
class Outcome:
    """Of one reader."""

    inputs: int = 0
    read: int = 0
    refused: int = 0
    seconds: float = 0.0
    findings: dict[str, bytes] = field(default_factory=dict)
    """By the last line of the error and where it came from: the input that gave it."""


@contextmanager
def _alarm() -> Iterator[None]:
    def hang(number: int, frame: object) -> None:
        raise Hang(f"no answer after {_HANG} s")

    before = signal.signal(signal.SIGALRM, hang)
    signal.alarm(_HANG)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def try_one(reader: Reader, folder: Path, content: bytes) -> bool:
    """Whether the reader takes the content.

    What escapes is anything but a result, a `TfbertNpuError`, or the `FileNotFoundError` of a reader whose
    file names others. An alarm ends an endless wait, but not one in native code.
    """
    (folder / reader.file).write_bytes(content)
    try:
        with _alarm(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            reader.read(folder)
    except (TfbertNpuError, *reader.refuses_with) as error:
        if len(str(error)) > 2000 or not str(error).strip():
            raise AssertionError(f"the message has {len(str(error))} characters") from error
        return False
    return True


def drive(reader: Reader, folder: Path, inputs: int, seed: int) -> Outcome:
    """Feed a reader with that many variants of its seeds."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    reader.others(folder)
    (folder / reader.file).parent.mkdir(exist_ok=True)
    rng, outcome = random.Random(seed), Outcome()
    began = time.perf_counter()
    for number in range(inputs):
        good = number < len(reader.seeds)
        content = reader.seeds[number] if good else mutate(rng.choice(reader.seeds), rng)
        outcome.inputs += 1
        try:
            taken = try_one(reader, folder, content)
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # noqa: BLE001 - panics of Rust and hangs as well
            last = traceback.extract_tb(error.__traceback__)[-1]
            outcome.findings.setdefault(
                f"{type(error).__name__} at {last.name}:{last.lineno}: {error}"[:200], content
            )
            continue
        outcome.read += taken
        outcome.refused += not taken
    outcome.seconds = time.perf_counter() - began
    return outcome
