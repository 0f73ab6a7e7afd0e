"""`tfbert-npu vocab`: train a WordPiece vocabulary."""

from __future__ import annotations

import json
import os
from pathlib import Path

import click

from tfbert_npu._failed_writes import make_directory
from tfbert_npu._files import replacing
from tfbert_npu.cli.progress import byte_progress
from tfbert_npu.cli.text_input import open_texts, read_texts
from tfbert_npu.preprocess import TextOptions
from tfbert_npu.preprocess.training import train_vocabulary


@click.command()
@click.argument("texts", type=click.Path(dir_okay=False))
@click.option(
    "--out", required=True, type=click.Path(path_type=Path, file_okay=False),
    help="Directory for vocab.txt and tokenizer_config.json.",
)  # fmt: skip
@click.option("--size", default=30522, show_default=True, type=click.IntRange(min=6), help="Pieces to learn.")
@click.option("--lower-case/--cased", default=True, show_default=True, help="Lower-case, and strip accents.")
@click.option(
    "--min-frequency", default=2, show_default=True, type=click.IntRange(min=1),
    help="Join pieces that stand together this often.",
)  # fmt: skip
@click.option(
    "--alphabet", default=1000, show_default=True, type=click.IntRange(min=1),
    help="Single characters to keep; Chinese wants 20000.",
)  # fmt: skip
@click.option("--progress/--no-progress", default=None, help="Show progress on standard error.")
@click.option("--json", "as_json", is_flag=True, help="Print what was written as JSON.")
def vocab(
    texts: str,
    out: Path,
    size: int,
    lower_case: bool,
    min_frequency: int,
    alphabet: int,
    progress: bool | None,
    as_json: bool,
) -> None:
    """Train a WordPiece vocabulary on TEXTS, a UTF-8 file with one text per line, or - for standard input.

    Example: tfbert-npu vocab texts.txt --out out/vocabulary
    """
    name = "standard input" if texts == "-" else texts
    for file in ("vocab.txt", "tokenizer_config.json"):
        if (out / file).exists():
            raise FileExistsError(f"{out / file} exists; choose another directory, or remove it first")
    with open_texts(texts) as (stream, total), byte_progress("Reading", total, progress) as consumed:
        vocabulary = train_vocabulary(
            read_texts(stream, name, consumed),
            size=size,
            options=TextOptions(lower_case=lower_case),
            min_frequency=min_frequency,
            alphabet_size=alphabet,
        )
    config = {"tokenizer_class": "BertTokenizer", "do_lower_case": lower_case}
    make_directory(out)
    contents = {
        "tokenizer_config.json": json.dumps(config, indent=2) + "\n",
        "vocab.txt": vocabulary.to_text(),
    }
    for file, content in contents.items():
        with replacing(out / file) as temporary:
            temporary.write_text(content, encoding="utf-8", newline="\n")
    if as_json:
        report = {
            "out": os.fspath(out),
            "pieces": len(vocabulary),
            "wanted": size,
            "do_lower_case": lower_case,
        }
        click.echo(json.dumps(report))
    else:
        fewer = f" of the {size} wanted: the text gives no more" if len(vocabulary) < size else ""
        click.echo(f"wrote {len(vocabulary)} pieces{fewer} to {out / 'vocab.txt'}")
