"""`tfbert-npu embed`: texts to vectors."""

from __future__ import annotations

from typing import get_args

import click

from tfbert_npu.cli import asking
from tfbert_npu.cli.array_output import form_of, open_sink
from tfbert_npu.cli.progress import byte_progress
from tfbert_npu.cli.text_input import open_texts, text_windows
from tfbert_npu.tasks.embedding import Pooling, embed_stream
from tfbert_npu.tasks.sentence_encoder import SentenceEncoder

# Sorting by length needs many batches to choose from; the texts of so many are little memory.
_BATCHES = 32


@click.command()
@click.argument("model")
@asking.source
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
@asking.batch_size
@asking.where
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
    where: asking.Where,
    progress: bool | None,
) -> None:
    """Embed texts, one per line, with MODEL: a directory, a hub repository, or an exported artifact.

    The vectors are those of `SentenceTransformer.encode`.

    The input is read as a stream, so it may be of any size. The vectors come out in the order of the texts,
    an empty line's among them.

    Example: echo "A text." | tfbert-npu embed minilm-rk3588 --normalize
    """
    if pooling is not None and (prompt is not None or dimensions is not None):
        raise click.UsageError(
            "--pooling ignores the model's files, so it goes without --prompt and --dimensions"
        )
    form = form or form_of(output)
    with open_texts(source) as (_, size):  # a file that is not there is said before a model is loaded
        pass
    with (
        open_sink(output, form) as sink,
        SentenceEncoder.from_pretrained(model, where.backend, **where.hub_options) as encoder,
    ):
        if seq_length is not None and seq_length > encoder.longest:
            raise click.BadParameter(
                f"{model} takes {encoder.longest} tokens at most", param_hint="--seq-length"
            )
        encoder.check_outputs("pooled_output" if pooling == "pooler" else None)
        encoder.max_seq_length = seq_length or encoder.max_seq_length
        with byte_progress("embedding", size, progress) as advance:
            for texts in text_windows(source, batch_size * _BATCHES, advance):
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
                    sink.write(texts[: len(vectors)], vectors)
                    del texts[: len(vectors)]
