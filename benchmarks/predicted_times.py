"""Predicted times of one call on one core of an RK3588, as the README's table.

    python benchmarks/predicted_times.py

The compiler is not needed: the operators are those of the architecture, in the form that `export_rknn`
writes. An artifact's own prediction, from its compiled operators, is in its manifest and in
`tfbert-npu inspect`.
"""

from __future__ import annotations

import click

from tfbert_npu.config import BertConfig
from tfbert_npu.platforms import platform_named
from tfbert_npu.rknn.options import checked_options
from tfbert_npu.rknn.time_model import predict, work_of_encoder

MODELS = {
    "MiniLM-L6": {"layers": 6, "hidden": 384, "heads": 12, "inner": 1536},
    "BERT-base": {"layers": 12, "hidden": 768, "heads": 12, "inner": 3072},
}
LENGTHS = (16, 32, 64, 128, 256, 512)


@click.command(help=__doc__)
def main() -> None:
    """Print the table."""
    platform = platform_named("rk3588")
    click.echo("| ms [predicted] | " + " | ".join(map(str, LENGTHS)) + " |")
    click.echo("|---" * (len(LENGTHS) + 1) + "|")
    for name, sizes in MODELS.items():
        for precision in ("fp16", "w8a8"):
            cells = []
            slices = _slices(sizes, precision)
            for length in LENGTHS:
                work = work_of_encoder(**sizes, length=length, int8=precision == "w8a8", slices=slices)
                found = predict(work, platform)
                cells.append(f"{found.milliseconds:.1f} ± {found.error_ms:.1f}")
            click.echo(f"| {name} {precision} | " + " | ".join(cells) + " |")


def _slices(sizes: dict[str, int], precision: str) -> int:
    """Parts of each feed-forward block in the file that `export_rknn` writes for these lengths."""
    config = BertConfig(
        hidden_size=sizes["hidden"], num_attention_heads=sizes["heads"], intermediate_size=sizes["inner"]
    )
    options = checked_options(
        config,
        target_platform="rk3588",
        shapes=[(1, length) for length in LENGTHS],
        precision=precision,
        layout="dynamic" if precision == "fp16" else "static",
        embeddings="inside",
        outputs=None,
        masked_positions=None,
        optimization_level=3,
        single_core=False,
        compiler=None,
    )
    return options.ffn_slices(config)


if __name__ == "__main__":
    main()
