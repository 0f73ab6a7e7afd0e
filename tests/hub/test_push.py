"""Upload through the real client, download again, load again; cards and refusals."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import tiny_bert
from click.testing import CliRunner
from fakehub import FakeHub

from tfbert_npu import (
    BertConfig,
    BertEncoder,
    BertForSequenceClassification,
    export_onnx,
    pull_from_hub,
    push_to_hub,
    tasks,
)
from tfbert_npu.cli import cli
from tfbert_npu.errors import CheckpointError
from tfbert_npu.hub.card import CardInfo, make_card
from tfbert_npu.runtime.model import NpuModel

CONFIG = BertConfig(
    vocab_size=30, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=12
)


@pytest.fixture
def encoder() -> BertEncoder:
    encoder = BertEncoder(CONFIG, mlm=True)
    encoder.build()
    return encoder


def test_up_and_down_again(hub: FakeHub, encoder: BertEncoder) -> None:
    url = push_to_hub(encoder, "owner/small", token=hub.token, license="mit", metrics={"accuracy": 0.5})
    sha = hub.repos["owner/small"].refs["main"]
    assert url == f"{hub.url}/owner/small/commit/{sha}"
    assert {"config.json", "model.safetensors", "README.md"} <= hub.repos["owner/small"].files().keys()
    uploads = [r for r in hub.requests if r.method == "PUT"]
    assert [r.received for r in uploads] == [len(hub.repos["owner/small"].files()["model.safetensors"])]
    assert sum("/commit/" in r.path for r in hub.requests) == 1

    again = pull_from_hub("owner/small", trainable=True)
    assert again.config == encoder.config
    for one, other in zip(again.trainable_variables, encoder.trainable_variables, strict=True):
        assert np.array_equal(one, other), one.path
    # A pull takes neither the card nor anything else that it does not need.
    assert hub.downloaded() == ["config.json", "model.safetensors"]


def test_a_second_upload_of_the_same_is_no_commit(hub: FakeHub, encoder: BertEncoder) -> None:
    push_to_hub(encoder, "owner/small", token=hub.token)
    before = hub.repos["owner/small"].refs["main"]
    sent = sum(r.received for r in hub.requests if r.method == "PUT")
    push_to_hub(encoder, "owner/small", token=hub.token)
    files = [hub.repos["owner/small"].commits[sha] for sha in (before, hub.repos["owner/small"].refs["main"])]
    assert files[0] == files[1]
    assert sum(r.received for r in hub.requests if r.method == "PUT") == sent


def test_a_card_is_not_overwritten_unasked(hub: FakeHub, encoder: BertEncoder) -> None:
    hub.add("owner/small").commit({"README.md": b"mine", "notes.txt": b"keep"})
    push_to_hub(encoder, "owner/small", token=hub.token)
    files = hub.repos["owner/small"].files()
    assert files["README.md"] == b"mine"
    assert files["notes.txt"] == b"keep"
    push_to_hub(encoder, "owner/small", token=hub.token, overwrite_card=True)
    assert hub.repos["owner/small"].files()["README.md"].startswith(b"---\n")


def test_a_directory_goes_up_as_it_is(hub: FakeHub, tmp_path: Path) -> None:
    model = tmp_path / "model"
    (model / "rknn").mkdir(parents=True)
    (model / "config.json").write_text("{}")
    (model / "README.md").write_text("---\nlicense: mit\n---\nwritten by hand\n")
    (model / "rknn" / "model.rknn").write_bytes(b"RKNN" * 10)
    (model / ".secret").write_text("s")
    push_to_hub(model, "owner/dir", token=hub.token, private=True)
    files = hub.repos["owner/dir"].files()
    assert hub.repos["owner/dir"].private
    assert set(files) == {".gitattributes", "config.json", "README.md", "rknn/model.rknn"}
    assert b"by hand" in files["README.md"]


def test_an_artifact_gets_a_card_that_its_manifest_does_not_guard(hub: FakeHub, tmp_path: Path) -> None:
    model = {"path": "m.rknn", "shapes": [[1, 8]], "sha256": "ab", "platform": "rk3588", "precision": "fp16"}
    support = [{"path": "README.md", "sha256": "cd"}, {"path": "config.json", "sha256": "ef"}]
    (tmp_path / "manifest.json").write_text(json.dumps({"models": [model], "support": support}))
    (tmp_path / "config.json").write_text(json.dumps(CONFIG.to_huggingface()))
    (tmp_path / "m.rknn").write_bytes(b"RKNN")
    (tmp_path / "README.md").write_text("left by the export")
    push_to_hub(tmp_path, "owner/npu", token=hub.token, license="mit")
    files = hub.repos["owner/npu"].files()
    assert b"license: mit" in files["README.md"]
    assert b"| `m.rknn` | rk3588 |" in files["README.md"]
    assert json.loads(files["manifest.json"]) == {"models": [model], "support": support[1:]}
    assert (tmp_path / "README.md").read_text() == "left by the export"


def test_a_link_out_of_the_directory_is_not_uploaded(hub: FakeHub, tmp_path: Path) -> None:
    (tmp_path / "private").write_text("s")
    model = tmp_path / "model"
    model.mkdir()
    (model / "notes.txt").symlink_to("../private")
    with pytest.raises(CheckpointError, match="leads out of its directory"):
        push_to_hub(model, "owner/dir", token=hub.token)
    assert not hub.requests


def test_refusals(hub: FakeHub, encoder: BertEncoder, tmp_path: Path) -> None:
    with pytest.raises(PermissionError, match=r"refuses to write to owner/small .* pass token="):
        push_to_hub(encoder, "owner/small", token="hf_wrong")
    with pytest.raises(ValueError, match="neither a directory nor a model with save_pretrained"):
        push_to_hub(3, "owner/small")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="holds no files"):
        push_to_hub(tmp_path / "empty", "owner/small")
    hub.stop()
    with pytest.raises(ConnectionError, match="cannot be reached"):
        push_to_hub(encoder, "owner/small", token=hub.token)
    assert not hub.repos


INFO = CardInfo(
    base_model="google-bert/bert-base-uncased",
    license="apache-2.0",
    language=("en",),
    metrics={"accuracy": 0.912345678},
    description="Tells good from bad.",
)


def _front_matter(card: str) -> dict:
    from huggingface_hub import ModelCard

    return ModelCard(card).data.to_dict()


def test_the_card_of_a_classifier(tmp_path: Path) -> None:
    values = {
        **CONFIG.to_huggingface("BertForSequenceClassification"),
        "id2label": {"0": "bad", "1": "go|od"},
    }
    (tmp_path / "config.json").write_text(json.dumps(values))
    card = make_card(tmp_path, "owner/sentiment", INFO)
    data = _front_matter(card)
    assert data["license"] == "apache-2.0"
    assert data["base_model"] == "google-bert/bert-base-uncased"
    assert data["pipeline_tag"] == "text-classification"
    assert data["library_name"] == "tfbert-npu"
    for line in (
        "# sentiment",
        "Tells good from bad.",
        "| accuracy | 0.912346 |",
        "| Labels | bad, go\\|od |",
        'model = pull_from_hub("owner/sentiment", component="model")',
        "tfbert-npu classify owner/sentiment --input texts.txt",
    ):
        assert line in card.splitlines(), line


def test_the_card_of_an_artifact(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(CONFIG.to_huggingface()))
    manifest = {
        "models": [
            {
                "path": "model_b1_s128.rknn",
                "platform": "rk3588",
                "shapes": [[1, 128]],
                "precision": "fp16",
                "sha256": "ab12",
            }
        ],
        "parity": {"pooled_output": {"cosine": 0.99991, "max_abs": 0.0123}},
    }
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    card = make_card(tmp_path, "owner/npu", INFO)
    assert {"rknn", "npu"} <= set(_front_matter(card)["tags"])
    assert "| `model_b1_s128.rknn` | rk3588 | [[1, 128]] | fp16 | ab12 |" in card
    assert "| pooled_output | 0.99991 | 0.0123 |" in card
    assert 'with load_npu(snapshot_download("owner/npu")) as model:' in card


def test_a_card_for_broken_files(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(CheckpointError, match=r"config\.json is not JSON"):
        make_card(tmp_path, "owner/x", INFO)
    (tmp_path / "config.json").unlink()
    (tmp_path / "manifest.json").write_text('{"models": [3]}')
    with pytest.raises(CheckpointError, match=r"manifest\.json is no manifest"):
        make_card(tmp_path, "owner/x", INFO)


def test_a_card_by_hand_and_arguments_for_another(hub: FakeHub, tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("by hand")
    with pytest.raises(ValueError, match=r"has a README\.md of its own; leave out"):
        push_to_hub(tmp_path, "owner/x", token=hub.token, license="mit")
    assert not hub.requests


def test_the_tokenizer_goes_along(hub: FakeHub, encoder: BertEncoder, minilm: Path) -> None:
    from tfbert_npu import BertTokenizer

    tokenizer = BertTokenizer.from_pretrained(minilm)
    push_to_hub(encoder, "owner/small", token=hub.token, preprocessor=tokenizer)
    layer = pull_from_hub("owner/small", component="preprocessor")
    assert hub.downloaded() == ["config.json", "tokenizer_config.json", "vocab.txt"]
    assert layer.vocabulary == tokenizer.vocabulary
    text = ["Some Text, isn't it?"]
    for name, ids in tokenizer(text).items():
        assert np.array_equal(layer(text)[name], ids)


def test_a_dry_run_asks_no_hub(hub: FakeHub, encoder: BertEncoder, tmp_path: Path) -> None:
    encoder.save_pretrained(tmp_path)
    result = CliRunner().invoke(cli, ["push", str(tmp_path), "owner/small", "--license", "mit", "--dry-run"])
    assert result.exit_code == 0, result.exception
    first, *lines = result.stdout.splitlines()
    assert first == "would upload 3 files to owner/small:"
    sizes = {line.split()[1]: int(line.split()[0]) for line in lines}
    assert sizes["model.safetensors"] == (tmp_path / "model.safetensors").stat().st_size
    assert set(sizes) == {"README.md", "config.json", "model.safetensors"}
    assert not hub.requests
    assert "owner/small" not in hub.repos


@pytest.mark.parametrize("beside", [False, True])
def test_an_artifact_on_the_hub_is_asked_as_a_local_one(hub: FakeHub, tmp_path: Path, beside: bool) -> None:
    """Alone in its repository, or beside the weights that it was made from."""
    model = BertForSequenceClassification(tiny_bert.config(initializer_range=0.3), labels=["x", "y"])
    model.save_pretrained(tmp_path / "model")
    tiny_bert.tokenizer().save_pretrained(tmp_path / "model")
    export_onnx(tmp_path / "model", tmp_path / "onnx", check=False)
    if beside:
        (tmp_path / "model" / "model.safetensors").rename(tmp_path / "onnx" / "model.safetensors")
    push_to_hub(tmp_path / "onnx", "owner/name", token=hub.token)
    expected = tasks.classify(model, tiny_bert.tokenizer(), "anna ran")[0]
    for backend in ("onnx", "tf") if beside else ("auto", "onnx"):
        with tasks.load("owner/name", "classify", backend) as loaded:  # type: ignore[arg-type]
            assert loaded.runs_on == ("tf" if backend == "tf" else "onnx")
            found = tasks.classify(loaded, "anna ran")[0]
        assert [one.label for one in found] == [one.label for one in expected]
        assert [one.score for one in found] == pytest.approx([one.score for one in expected], abs=1e-5)
    if not beside:
        assert isinstance(pull_from_hub("owner/name"), NpuModel)
