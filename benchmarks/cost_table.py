"""What MiniLM and BERT-base cost at each length and packed, in fp16 and w8a8: the README's table.

    python benchmarks/cost_table.py [MODEL] [--lengths 16,32,64,128,256,512]

Compiles one file for each row for rk3588 (needs `tfbert-npu toolchain install`; BERT-base has random weights,
which cost what any others do). Times are [predicted] on one core, with one standard deviation; cycles and
operators are the compiler's own count, not measured on a board.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import click

from benchmarks.export_table import minilm
from tfbert_npu import BertConfig, BertEncoder, BertTokenizer, export_rknn
from tfbert_npu.rknn.time_model import described

HEADINGS = (
    "model", "precision", "shape", "ms [predicted]", "cycles [compiler]", "NPU / CPU operators", "MB moved",
    "file, MB",
)  # fmt: skip
FEW = ["How do I get a new card?", "请问怎么办理新卡？"]
"""Texts for the gate: what they are does not change the cost, so there are few."""


def bert_base(directory: Path, tokenizer: str) -> str:
    """A BERT-base with random weights and another model's vocabulary."""
    vocabulary = BertTokenizer.from_pretrained(tokenizer)
    BertEncoder(BertConfig(vocab_size=len(vocabulary))).save_pretrained(directory)
    vocabulary.save_pretrained(directory)
    return str(directory)


@click.command(help=__doc__)
@click.argument("model", required=False)
@click.option("--lengths", default="16,32,64,128,256,512")
@click.option("--models", default="MiniLM-L6,BERT-base")
@click.option("--precisions", default="fp16,w8a8")
def main(model: str | None, lengths: str, models: str, precisions: str) -> None:
    """Print the table as it comes."""
    click.echo(f"| {' | '.join(HEADINGS)} |")
    click.echo("|---" * len(HEADINGS) + "|")
    with tempfile.TemporaryDirectory() as folder:
        small = model or minilm()
        sources = {"MiniLM-L6": small, "BERT-base": bert_base(Path(folder) / "base", small)}
        for name in models.split(","):
            for precision in precisions.split(","):
                for length in map(int, lengths.split(",")):
                    _row(Path(folder), name, sources[name], precision, length, packed=False)
                if precision == "fp16":  # packed files are
                    _row(Path(folder), name, sources[name], precision, 128, packed=True)


def _row(folder: Path, name: str, source: str, precision: str, length: int, *, packed: bool) -> None:
    with tempfile.TemporaryDirectory(dir=folder) as directory:
        manifest = export_rknn(
            source,
            Path(directory) / "out",
            shapes=[(1, length)],
            precision=precision,
            texts=FEW,
            packed=packed,
        )
    (shape, cost), *_ = manifest.cost.items()
    size = sum(file.size for file in manifest.rknn_files) / 1e6
    cells = (
        name,
        precision,
        f"{shape} packed" if packed else shape,
        described(cost.get("predicted")),
        f"{cost['cycles']:,.0f}".replace(",", " "),
        f"{cost['npu_ops']:.0f} / {cost['cpu_ops']:.0f}",
        f"{cost['mb_moved']:.1f}",
        f"{size:.1f}",
    )
    click.echo(f"| {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
