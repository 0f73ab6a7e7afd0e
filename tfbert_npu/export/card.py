"""`README.md` of an artifact directory: the hub's model card, with the compiler's figures after it."""

from __future__ import annotations

from pathlib import Path

from tfbert_npu.artifact.manifest import Manifest
from tfbert_npu.hub.card import CARD, CardInfo, make_card
from tfbert_npu.rknn.time_model import described


def write_card(directory: Path, name: str, manifest: Manifest) -> None:
    """Write the card of a directory that holds its `config.json` and `manifest.json`.

    Args:
        directory: Where the files are.
        name: What the model is to be called.
        manifest: The content of `manifest.json`.
    """
    text = make_card(directory, name, CardInfo(description=_description(manifest)))
    (directory / CARD).write_text(f"{text}\n{_costs(manifest)}", encoding="utf-8")


def _description(manifest: Manifest) -> str:
    build, gate = manifest.build, manifest.gate
    return (
        f"Compiled in {manifest.precision} for {build['target_platform']} by rknn-toolkit2 "
        f"{build['toolkit_version']}; the board's runtime (librknnrt) must not be older. Agreement was "
        f"measured in the vendor's simulator against {gate['reference']}, on {gate['inputs']} with "
        "padding, at real tokens; the figures are those of the worst text."
    )


def _costs(manifest: Manifest) -> str:
    lines = [
        "## Cost",
        "",
        "For one call on one core. Milliseconds are [predicted] from published operator timings of RK3588 "
        "boards (NPU at 1 GHz), with one standard deviation; cycles, MB and operators are the [compiler]'s, "
        "whose cycles count matrix products only and are no time.",
        "",
        "| batch x length | ms [predicted] | cycles [compiler] | MB moved | operators on NPU / CPU |",
        "|---|---|---|---|---|",
    ]
    for shape, cost in manifest.cost.items():
        lines.append(
            f"| {shape} | {described(cost.get('predicted'))} | {cost['cycles']:.0f} | "
            f"{cost['mb_moved']:.1f} | {cost['npu_ops']:.0f} / {cost['cpu_ops']:.0f} |"
        )
    return "\n".join(lines) + "\n"
