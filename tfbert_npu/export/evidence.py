"""What is kept of an export that failed."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tfbert_npu.export.checks import StrictError
from tfbert_npu.export.directory import staged
from tfbert_npu.export.gate import GateError
from tfbert_npu.quantize.study import SearchError
from tfbert_npu.rknn.worker import WorkerError

LOG = "compiler.log"
SEARCH = "search.json"
"""What a search measured before it gave up."""

_KEPT = (LOG, SEARCH, "gate.json", "analysis", "model.onnx")


@contextmanager
def staged_with_evidence(target: Path, *, overwrite: bool) -> Iterator[Path]:
    """As `directory.staged`; if the export fails on the model or the compiler, its evidence is kept.

    It goes to `target.failed`; an export that succeeds takes an older failure's away.
    """
    failed = target.with_name(f"{target.name}.failed")
    with staged(target, overwrite=overwrite) as staging:
        try:
            yield staging
        except (GateError, WorkerError, StrictError, SearchError) as error:
            if isinstance(error, SearchError) and error.evidence:
                (staging / SEARCH).write_text(json.dumps(error.evidence) + "\n", encoding="utf-8")
                error.args = (f"{error}; what was measured is in {failed / SEARCH}",)
            shutil.rmtree(failed, ignore_errors=True)
            failed.mkdir(parents=True)
            for name in _KEPT:
                if (staging / name).exists():
                    os.rename(staging / name, failed / name)
            error.args = (str(error).replace(os.fspath(staging), os.fspath(failed)),)
            if isinstance(error, WorkerError):
                error.log = failed / LOG
            raise
    shutil.rmtree(failed, ignore_errors=True)
