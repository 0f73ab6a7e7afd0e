"""`tfbert-npu embed`: texts to vectors."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, get_args

import click

from tfbert_npu.tasks.embedding import Pooling, embed_stream


@click.command()
@click.argument("model")
@click.option(
    "--input", "source", default="-", metavar="FILE", help="Texts, one per line; - is standard input."
)
@click.option("--output", default="-", metavar="FILE", help="Vectors; - is standard output, as JSON lines.")
@click.option(
    "--format",
    "form",
    type=click.Choice(["npy", "jsonl"]),
    help="Form of the output; by default as its name ends, JSON lines otherwise.",
)
@click.option("--pooling", type=click.Choice(get_args(Pooling)), default="mean", show_default=True)
@click.option("--normalize", is_flag=True, help="Scale each vector to length 1.")
@click.option(
    "--seq-length",
    type=click.IntRange(min=2),
    help="Tokens per text at most; by default 128, or what the model has positions for.",
)
@click.option("--batch-size", type=click.IntRange(min=1), default=32, show_default=True)
@click.option(
    "--backend",
    type=click.Choice(["tf", "auto", "rknn", "simulator", "onnx"]),
    help="What computes. By default the NPU or the CPU if MODEL is an artifact directory, else TensorFlow; "
    "all but tf need such a directory.",
)
@click.option("--revision", help="Branch, tag or commit of a hub repository.")
@click.option("--progress/--no-progress", default=None, help="Show a bar; by default on a terminal.")
def embed(
    model: str,
    source: str,
    output: str,
    form: str | None,
    pooling: Pooling,
    normalize: bool,
    seq_length: int | None,
    batch_size: int,
    backend: str | None,
    revision: str | None,
    progress: bool | None,
) -> None:
    """Embed texts, one per line, with MODEL: a directory or a hub repository.

    The input is read as a stream, so it may be of any size. The vectors come out in the order of the texts,
    an empty line's among them.
    """
    from tfbert_npu.cli.array_output import open_sink
    from tfbert_npu.cli.progress import byte_progress
    from tfbert_npu.cli.text_input import open_texts, read_texts

    if form is None:
        form = "npy" if Path(output).suffix == ".npy" else "jsonl"
    with open_texts(source) as (stream, size), open_sink(output, form) as sink:
        encoder, tokenizer = _load(model, backend, revision)
        longest = encoder.config.max_position_embeddings
        if seq_length is not None and seq_length > longest:
            raise click.BadParameter(f"{model} has positions for {longest} tokens", param_hint="--seq-length")
        with byte_progress("embedding", size, progress) as advance:
            remembered: deque[str] = deque()
            texts = _remember(
                read_texts(stream, source if source != "-" else "standard input", advance), remembered
            )
            for vectors in embed_stream(
                texts,
                encoder,
                tokenizer,
                pooling=pooling,
                normalize=normalize,
                seq_length=seq_length or min(128, longest),
                batch_size=batch_size,
            ):
                sink.write([remembered.popleft() for _ in vectors], vectors)


def _remember(texts: Iterable[str], remembered: deque[str]) -> Iterator[str]:
    """Pass the texts on and keep those of the window in work, for the sink to write beside their vectors."""
    for text in texts:
        remembered.append(text)
        yield text


def _load(model: str, backend: str | None, revision: str | None) -> tuple[Any, Any]:
    from tfbert_npu import BertTokenizer

    if backend is None:
        backend = "auto" if (Path(model) / "manifest.json").is_file() else "tf"
    tokenizer = BertTokenizer.from_pretrained(model, revision=revision)
    if backend == "tf":
        from tfbert_npu import BertEncoder

        return BertEncoder.from_pretrained(model, revision=revision, mlm=False), tokenizer
    from tfbert_npu.runtime.load import load_npu

    return load_npu(model, backend, truncate=True), tokenizer  # type: ignore[arg-type]
