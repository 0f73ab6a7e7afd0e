"""`tfbert-npu embed`: texts to vectors."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import get_args

import click

from tfbert_npu.tasks.embedding import Pooling, embed_stream
from tfbert_npu.tasks.sentence_encoder import Backend, SentenceEncoder


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
@click.option(
    "--pooling",
    type=click.Choice(get_args(Pooling)),
    help="Pool so, whatever the model's sentence-transformers files say. By default as they say, or the mean "
    "where there are none.",
)
@click.option(
    "--normalize/--no-normalize",
    default=None,
    help="Scale each vector to length 1; by default as the model does.",
)
@click.option("--prompt", metavar="NAME", help="The model's prompt to put before each text, such as query.")
@click.option(
    "--dimensions", type=click.IntRange(min=1), help="Keep that many numbers of each vector (Matryoshka)."
)
@click.option(
    "--seq-length",
    type=click.IntRange(min=2),
    help="Tokens per text at most; by default what the model's files say, or what it has positions for.",
)
@click.option("--batch-size", type=click.IntRange(min=1), default=32, show_default=True)
@click.option(
    "--backend",
    type=click.Choice(["tf", "auto", "rknn", "simulator", "onnx"]),
    help="What computes. By default the NPU or the CPU if MODEL is an artifact directory, else TensorFlow; "
    "rknn, simulator and onnx need such a directory.",
)
@click.option("--revision", help="Branch, tag or commit of a hub repository.")
@click.option("--progress/--no-progress", default=None, help="Show a bar; by default on a terminal.")
def embed(
    model: str,
    source: str,
    output: str,
    form: str | None,
    pooling: Pooling | None,
    normalize: bool | None,
    prompt: str | None,
    dimensions: int | None,
    seq_length: int | None,
    batch_size: int,
    backend: Backend | None,
    revision: str | None,
    progress: bool | None,
) -> None:
    """Embed texts, one per line, with MODEL: a directory, a hub repository, or an exported artifact.

    The vectors are those of `SentenceTransformer.encode`.

    The input is read as a stream, so it may be of any size. The vectors come out in the order of the texts,
    an empty line's among them.
    """
    from tfbert_npu.cli.array_output import open_sink
    from tfbert_npu.cli.progress import byte_progress
    from tfbert_npu.cli.text_input import open_texts, read_texts

    if form is None:
        form = "npy" if Path(output).suffix == ".npy" else "jsonl"
    if pooling is not None and (prompt is not None or dimensions is not None):
        raise click.UsageError(
            "--pooling ignores the model's files, so it goes without --prompt and --dimensions"
        )
    with open_texts(source) as (stream, size), open_sink(output, form) as sink:
        hub = {} if revision is None else {"revision": revision}
        with SentenceEncoder.from_pretrained(model, backend or "auto", **hub) as encoder:
            if seq_length is not None and seq_length > encoder.longest:
                raise click.BadParameter(
                    f"{model} takes {encoder.longest} tokens at most", param_hint="--seq-length"
                )
            encoder.max_seq_length = seq_length or encoder.max_seq_length
            with byte_progress("embedding", size, progress) as advance:
                remembered: deque[str] = deque()
                name = source if source != "-" else "standard input"
                texts = _remember(read_texts(stream, name, advance), remembered)
                if pooling is None:
                    chunks = encoder.stream(texts, prompt, normalize, dimensions, batch_size)
                else:
                    chunks = embed_stream(
                        texts,
                        encoder.run,
                        encoder.tokenizer,
                        pooling=pooling,
                        normalize=bool(normalize),
                        seq_length=encoder.max_seq_length,
                        batch_size=batch_size,
                    )
                for vectors in chunks:
                    sink.write([remembered.popleft() for _ in vectors], vectors)


def _remember(texts: Iterable[str], remembered: deque[str]) -> Iterator[str]:
    """Pass the texts on and keep those of the window in work, for the sink to write beside their vectors."""
    for text in texts:
        remembered.append(text)
        yield text
