"""Model cards: what a repository's README.md says of the model, for people and for the hub's search."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tfbert_npu.errors import CheckpointError
from tfbert_npu.heads import ENCODER, head_of_class

CARD = "README.md"
MANIFEST = "manifest.json"

_COMMANDS = {
    "fill-mask": 'fill-mask {repo} "Paris is the [MASK] of France."',
    "text-classification": "classify {repo} --input texts.txt",
    "token-classification": "ner {repo} --input texts.txt",
    "question-answering": 'qa {repo} --question "Who?" --context context.txt',
    "feature-extraction": "embed {repo} --input texts.txt --output out.npy",
}


@dataclass(frozen=True)
class CardInfo:
    """What the author knows and no file says.

    Args:
        base_model: Repository of the model that this one was made from.
        license: Identifier of the license, such as `"apache-2.0"`.
        language: Language codes, such as `["en"]`.
        datasets: Hub data sets that it was trained on.
        metrics: Measured figures by name, such as `{"accuracy": 0.91}`.
        description: A paragraph on what the model is for.
    """

    base_model: str | None = None
    license: str | None = None
    language: Sequence[str] = ()
    datasets: Sequence[str] = ()
    metrics: Mapping[str, float] = field(default_factory=dict)
    description: str = ""


def make_card(directory: Path, repo_id: str, info: CardInfo) -> str:
    """The text of README.md for a directory of model files, written by us or by transformers.

    Raises:
        CheckpointError: `config.json` or `manifest.json` is not a JSON object, or not of the right form.
    """
    config = _read_json(directory / "config.json")
    manifest = _read_json(directory / MANIFEST)
    architecture = _architecture(config)
    task = _task(architecture)
    parts = [
        _front_matter(info, task, is_npu=bool(manifest)),
        f"# {repo_id.rpartition('/')[2]}",
        info.description.strip(),
        _facts(config, architecture, task, info),
        _metrics(info.metrics),
        _artifact_of(directory, manifest),
        _usage(repo_id, architecture, task, is_npu=bool(manifest)),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _front_matter(info: CardInfo, task: str, is_npu: bool) -> str:
    from huggingface_hub import ModelCardData

    data = ModelCardData(
        library_name="tfbert-npu",
        pipeline_tag=task,
        license=info.license,
        language=list(info.language) or None,
        base_model=info.base_model,
        datasets=list(info.datasets) or None,
        tags=["bert", "keras", "tensorflow", *(["rknn", "rockchip", "npu"] if is_npu else [])],
    )
    return f"---\n{data.to_yaml()}\n---"


def _facts(config: Mapping[str, Any], architecture: str, task: str, info: CardInfo) -> str:
    def size(*names: str) -> Any:
        return next((config[name] for name in names if name in config), "unknown")

    rows = [
        ("Architecture", architecture),
        ("Task", task),
        ("Layers", size("num_hidden_layers", "n_layers")),
        ("Hidden size", size("hidden_size", "dim")),
        ("Attention heads", size("num_attention_heads", "n_heads")),
        ("Vocabulary", size("vocab_size")),
        ("Longest sequence", size("max_position_embeddings")),
        ("Base model", info.base_model or "not stated"),
        ("License", info.license or "not stated"),
    ]
    labels = config.get("id2label")
    if isinstance(labels, dict) and task in ("text-classification", "token-classification"):
        rows.append(("Labels", ", ".join(str(label) for label in labels.values())))
    return _table(("", ""), rows)


def _metrics(metrics: Mapping[str, float]) -> str:
    if not metrics:
        return ""
    return "## Metrics\n\n" + _table(("Metric", "Value"), [(k, f"{v:.6g}") for k, v in metrics.items()])


def _artifact_of(directory: Path, manifest: Mapping[str, Any]) -> str:
    try:
        return _artifact(manifest)
    except (AttributeError, KeyError, TypeError) as error:
        raise CheckpointError(f"{directory / MANIFEST} is no manifest of an artifact ({error!r})") from error


def _artifact(manifest: Mapping[str, Any]) -> str:
    """The files for the NPU and how far their outputs were from the original's, as measured at export."""
    models = manifest.get("models")
    if not models:
        return ""
    rows = [
        (
            f"`{m['path']}`",
            m.get("platform") or "",
            json.dumps(m["shapes"]),
            m.get("precision") or "",
            m["sha256"],
        )
        for m in models
    ]
    text = "## Files for the NPU\n\n" + _table(("File", "Platform", "Shapes", "Precision", "sha256"), rows)
    parity = [(name, one["cosine"], one["max_abs"]) for name, one in manifest.get("parity", {}).items()]
    if parity:
        table = _table(("Output", "Cosine", "Largest difference"), parity)
        text += f"\n\nMeasured against the original at export, worst case over all shapes:\n\n{table}"
    return text


def _usage(repo_id: str, architecture: str, task: str, is_npu: bool) -> str:
    command = f"tfbert-npu {_COMMANDS.get(task, 'inspect {repo}').format(repo=repo_id)}"
    on_npu = (
        "from huggingface_hub import snapshot_download\n"
        "from tfbert_npu import load_npu\n\n"
        f'with load_npu(snapshot_download("{repo_id}")) as model:\n'
        "    outputs = model(inputs)  # numpy in, numpy out; no TensorFlow"
    )
    on_command_line = _example("On the command line", command, "")
    if is_npu:
        return "\n\n".join(["## Usage", _example("On the board", on_npu), on_command_line])
    component = "" if (head_of_class(architecture) or ENCODER) == ENCODER else ', component="model"'
    in_keras = (
        "from tfbert_npu import pull_from_hub\n\n"
        f'preprocessor = pull_from_hub("{repo_id}", component="preprocessor")\n'
        f'model = pull_from_hub("{repo_id}"{component})\n'
        'outputs = model(preprocessor(["A text."]))'
    )
    to_npu = (
        "from tfbert_npu import export_rknn\n\n"
        'export_rknn(model, "artifact", target_platform="rk3588", shapes=((1, 128),))\n'
        + ("" if component else 'model.delegate_to("artifact")')
    ).rstrip()
    in_forms = [_example("As a Keras 3 layer", in_keras), _example("On a Rockchip NPU", to_npu)]
    return "\n\n".join(["## Usage", *in_forms, on_command_line])


def _example(where: str, code: str, language: str = "python") -> str:
    return f"{where}:\n\n```{language}\n{code}\n```"


def _table(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(_cell(value) for value in line) + " |" for line in lines)


def _cell(value: Any) -> str:
    return " ".join(str(value).split()).replace("|", "\\|")


def _architecture(config: Mapping[str, Any]) -> str:
    named = config.get("architectures")
    return str(named[0]) if isinstance(named, list) and named else "BertModel"


def _task(architecture: str) -> str:
    return (head_of_class(architecture) or ENCODER).task


def _read_json(path: Path) -> dict[str, Any]:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} is not JSON ({error})", "write the directory again") from error
    if not isinstance(values, dict):
        raise CheckpointError(f"{path} must hold a JSON object, not a {type(values).__name__}")
    return values
