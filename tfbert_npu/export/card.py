"""`README.md` of an artefact directory: a model card with the measured figures."""

from __future__ import annotations

from pathlib import Path

from tfbert_npu.artifact.manifest import Manifest
from tfbert_npu.config import BertConfig


def write_card(directory: Path, manifest: Manifest, config: BertConfig) -> None:
    """Write the card; what it says comes from the manifest alone."""
    (directory / "README.md").write_text(_text(directory.name, manifest, config), encoding="utf-8")


def _text(name: str, manifest: Manifest, config: BertConfig) -> str:
    platform = manifest.build["target_platform"]
    version = manifest.build["toolkit_version"]
    lines = [
        "---",
        "library_name: tfbert-npu",
        f"tags: [rknn, rockchip, npu, {platform}, {config.model_type}]",
        "---",
        f"# {config.model_type} for {platform}",
        "",
        f"{config.num_hidden_layers} layers of {config.hidden_size}, {manifest.head.replace('_', ' ')}, "
        f"{manifest.precision}, compiled by rknn-toolkit2 {version}; the board's runtime (librknnrt) must "
        "not be older.",
        "",
        "```python",
        "from tfbert_npu import BertTokenizer, load_npu",
        "",
        'directory = "path/to/this/directory"',
        "tokenizer = BertTokenizer.from_pretrained(directory)",
        "with load_npu(directory) as npu:",
        '    outputs = npu(tokenizer(["A sentence."]))',
        "```",
        "",
        "## Agreement with the model",
        "",
        f"Simulator against {manifest.gate['reference']} on {manifest.gate['inputs']} with padding, worst "
        "case over all shapes.",
        "",
        "| output | cosine | largest difference |",
        "|---|---|---|",
        *(
            f"| {name} | {one['cosine']:.6f} | {one['max_abs']:.2g} |"
            for name, one in manifest.parity.items()
        ),
        "",
        "## Cost by the compiler's count",
        "",
        "For one core; ms at 1 GHz, a lower bound. MB are read and written for one call.",
        "",
        "| batch x length | cycles | ms | MB moved | operators on NPU / CPU |",
        "|---|---|---|---|---|",
        *(
            f"| {shape} | {cost['cycles']:.0f} | {cost['milliseconds']:.2f} | {cost['mb_moved']:.1f} | "
            f"{cost['npu_ops']:.0f} / {cost['cpu_ops']:.0f} |"
            for shape, cost in manifest.cost.items()
        ),
        "",
        "## Files",
        "",
        "| file | MB | shapes |",
        "|---|---|---|",
        *(
            f"| {model.path} | {model.size / 2**20:.1f} | "
            f"{', '.join(f'{b}x{s}' for b, s in model.shapes) or 'any'} |"
            for model in manifest.models
        ),
        "",
    ]
    return "\n".join(lines)
