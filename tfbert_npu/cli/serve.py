"""`tfbert-npu serve`: embeddings over HTTP."""

from __future__ import annotations

import logging
import os
import socket
from contextlib import suppress
from functools import partial

import click

from tfbert_npu.cli import asking
from tfbert_npu.errors import TaskError, TfbertNpuError, require
from tfbert_npu.tasks.loading import TaskModel
from tfbert_npu.tasks.sentence_encoder import SentenceEncoder


@click.command()
@click.argument("models", nargs=-1, required=True, metavar="MODEL...")
@asking.where
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", type=click.IntRange(0, 65535), default=8080, show_default=True, help="0: any.")
@click.option("--workers", type=click.IntRange(min=1), default=1, show_default=True, help="Calls at once.")
@asking.batch_size
@click.option(
    "--max-texts", type=click.IntRange(min=1), default=2048, show_default=True, help="Of a request."
)
@click.option(
    "--max-queue", type=click.IntRange(min=1), default=4096, show_default=True, help="Texts waiting."
)
@click.option("--timeout", type=click.FloatRange(min=0.001), default=60.0, show_default=True, help="Seconds.")
def serve(
    models: tuple[str, ...],
    where: asking.Where,
    host: str,
    port: int,
    workers: int,
    batch_size: int,
    max_texts: int,
    max_queue: int,
    timeout: float,
) -> None:
    """Serve sentence vectors of MODEL, or the scores of a classifier or cross-encoder.

    MODEL are directories, hub repositories or artifacts. The routes are OpenAI's /v1/embeddings and
    /v1/models, Text Embeddings Inference's /embed, /rerank, /predict, /tokenize and /info, Ollama's
    /api/embed, /health, and Prometheus' /metrics. The first MODEL of its kind is the default. If the
    environment has TFBERT_NPU_API_KEY, clients must send it.

    Example: tfbert-npu serve minilm-rk3588 --workers 3
    """
    uvicorn = require("uvicorn", "serve")
    for module in ("starlette", "pydantic", "prometheus_client"):
        require(module, "serve")
    from tfbert_npu.serve.app import Limits, Service  # needs the extra

    try:
        listener = socket.create_server((host, port))
    except OSError as error:
        raise click.ClickException(
            f"cannot listen on {host}:{port} ({error.strerror}); choose another with --port"
        ) from error
    with listener:
        logging.basicConfig(level=logging.INFO, format="%(message)s")
        loaded: dict[str, SentenceEncoder | TaskModel | str] = {name: _load(name, where) for name in models}
        if all(isinstance(model, str) for model in loaded.values()):
            raise click.ClickException("; ".join(map(str, loaded.values())))
        service = Service(
            loaded,
            workers=workers,
            batch_size=batch_size,
            limits=Limits(texts=max_texts, queue=max_queue, timeout=timeout),
            api_key=os.environ.get("TFBERT_NPU_API_KEY"),
        )
        bound = listener.getsockname()
        serving = partial(click.echo, f"serving on http://{bound[0]}:{bound[1]}", err=True)
        # Not said before uvicorn handles signals: until then, Ctrl-C would leave a loop that is half made.
        config = uvicorn.Config(service.app(serving), log_config=None, access_log=False)
        with suppress(KeyboardInterrupt):  # uvicorn has answered what it took, and raises the signal again
            uvicorn.Server(config).run(sockets=[listener])


def _load(name: str, where: asking.Where) -> SentenceEncoder | TaskModel | str:
    """The model, or why it cannot be loaded: the others serve on."""
    try:
        try:
            return where.load(name, "classify")
        except TaskError:
            return SentenceEncoder.from_pretrained(name, where.backend, **where.hub_options)
    except (TfbertNpuError, OSError, ValueError) as error:
        click.echo(f"tfbert-npu: {name} is not served: {error}", err=True)
        return str(error)
