"""`SentenceEncoder` against sentence-transformers itself, for each layout that its `save` writes."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_bert

from tfbert_npu import SentenceEncoder, export_onnx
from tfbert_npu.checkpoints.sentence_options import read_sentence_options
from tfbert_npu.errors import ArtifactError, CheckpointError

TEXTS = [
    "the cat sat",
    "who ran in paris, anna?",
    "",
    "berlin " * 30,
    "a good dog ran where the bad cat sat in berlin",
]


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    transformers, torch = pytest.importorskip("transformers"), pytest.importorskip("torch")
    torch.manual_seed(0)
    directory = tmp_path_factory.mktemp("bert")
    (directory / "vocab.txt").write_text("\n".join(tiny_bert.TOKENS) + "\n")
    sizes = tiny_bert.config()
    config = transformers.BertConfig(
        vocab_size=sizes.vocab_size,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=48,
        max_position_embeddings=64,
        initializer_range=0.5,  # vectors that differ
    )
    transformers.BertModel(config).save_pretrained(directory)
    transformers.BertTokenizerFast(vocab_file=str(directory / "vocab.txt")).save_pretrained(directory)
    return directory


def build(bert: Path, pooling: Any, after: tuple[str, ...] = (), **options: Any) -> Any:
    st = pytest.importorskip("sentence_transformers")
    modules = pytest.importorskip("sentence_transformers.sentence_transformer.modules")
    include_prompt = options.pop("include_prompt", True)
    pool = modules.Pooling(32, pooling_mode=pooling, include_prompt=include_prompt)
    stack = [modules.Transformer(str(bert), max_seq_length=20), pool]
    for name in after:
        width = pool.pooling_output_dimension
        stack.append(modules.Dense(width, 16) if name == "dense" else modules.Normalize())
    return st.SentenceTransformer(modules=stack, device="cpu", **options)


LAYOUTS: dict[str, dict[str, Any]] = {
    "cls": {"pooling": "cls"},
    "mean": {"pooling": "mean", "after": ("normalize",)},
    "max": {"pooling": "max"},
    "sqrt": {"pooling": "mean_sqrt_len_tokens"},
    "last": {"pooling": "lasttoken"},
    "weighted": {"pooling": "weightedmean"},
    "concatenated": {"pooling": ("cls", "mean", "max")},
    "dense": {"pooling": ("cls", "mean"), "after": ("dense", "normalize")},
    "prompts": {
        "pooling": "mean",
        "after": ("normalize",),
        "prompts": {"query": "who sat: ", "passage": "the "},
        "default_prompt_name": "query",
        "include_prompt": False,
    },
    "truncated": {"pooling": "mean", "after": ("normalize",), "truncate_dim": 8},
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_vectors_are_those_of_sentence_transformers(layout: str, bert: Path, tmp_path: Path) -> None:
    theirs = build(bert, **LAYOUTS[layout])
    theirs.save(str(tmp_path))
    ours = SentenceEncoder.from_pretrained(tmp_path)
    assert ours.max_seq_length == 20
    expected = theirs.encode(TEXTS)
    got = ours.encode(TEXTS)
    assert got.shape == expected.shape
    np.testing.assert_allclose(got, expected, atol=1e-5)
    for name in LAYOUTS[layout].get("prompts", ()):
        np.testing.assert_allclose(
            ours.encode(TEXTS, prompt_name=name), theirs.encode(TEXTS, prompt_name=name), atol=1e-5
        )
    if layout != "truncated":
        short = theirs.encode(TEXTS, truncate_dim=4, normalize_embeddings=True)
        np.testing.assert_allclose(ours.encode(TEXTS, normalize=True, dimensions=4), short, atol=1e-5)


def test_old_flags_mean_the_same(bert: Path, tmp_path: Path) -> None:
    """Files of sentence-transformers before 5: module types under another path, one flag for each mode."""
    theirs = build(bert, "cls")
    theirs.save(str(tmp_path))
    names = ("Transformer", "Pooling")
    modules = [
        {"idx": i, "name": str(i), "path": "1_Pooling" * i, "type": f"sentence_transformers.models.{name}"}
        for i, name in enumerate(names)
    ]
    (tmp_path / "modules.json").write_text(json.dumps(modules))
    flags = {
        "word_embedding_dimension": 32,
        "pooling_mode_cls_token": True,
        "pooling_mode_mean_tokens": False,
    }
    (tmp_path / "1_Pooling" / "config.json").write_text(json.dumps(flags))
    np.testing.assert_allclose(
        SentenceEncoder.from_pretrained(tmp_path).encode(TEXTS), theirs.encode(TEXTS), atol=1e-5
    )


def test_real_weights(minilm: Path) -> None:
    """MiniLM as published: mean and normalized, at most 256 tokens."""
    st = pytest.importorskip("sentence_transformers")
    ours = SentenceEncoder.from_pretrained(minilm)
    assert ours.max_seq_length == 256
    expected = st.SentenceTransformer(str(minilm), device="cpu").encode(TEXTS)
    got = ours.encode(TEXTS)
    np.testing.assert_allclose(got, expected, atol=1e-5)
    np.testing.assert_allclose(ours.similarity(got, got), expected @ expected.T, atol=1e-5)


@pytest.mark.parametrize("layout", ["dense", "prompts"])
def test_an_exported_directory_gives_the_same(layout: str, bert: Path, tmp_path: Path) -> None:
    """The sentence-transformers files travel with the artifact, guarded by its manifest."""
    pytest.importorskip("onnxruntime")
    theirs = build(bert, **LAYOUTS[layout])
    theirs.save(str(tmp_path / "model"))
    export_onnx(tmp_path / "model", tmp_path / "artifact")
    with SentenceEncoder.from_pretrained(tmp_path / "artifact", backend="onnx") as ours:
        np.testing.assert_allclose(ours.encode(TEXTS), theirs.encode(TEXTS), atol=1e-5)
    pooling = tmp_path / "artifact" / "1_Pooling" / "config.json"
    pooling.write_text(pooling.read_text().replace("cls", "max").replace("mean", "max"))
    with pytest.raises(ArtifactError, match=r"1_Pooling/config\.json"):
        SentenceEncoder.from_pretrained(tmp_path / "artifact", backend="onnx")


def test_without_files_the_mean_and_a_line(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    directory = tiny_bert.write_checkpoint(tmp_path / "plain")
    encoder = SentenceEncoder.from_pretrained(directory)
    assert "plain means" in caplog.text
    assert encoder.encode("the cat").shape == (1, 32)
    assert encoder.encode([]).shape == (0, 32)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: _edit(d / "modules.json", lambda m: m[1].update(type="x.CNN")), "x.CNN"),
        (lambda d: _edit(d / "modules.json", lambda m: m.pop(1)), "no Pooling"),
        (lambda d: _edit(d / "modules.json", lambda m: m[1].update(path="../x")), "not a path inside"),
        (lambda d: _edit(d / "1_Pooling/config.json", lambda c: c.update(pooling_mode="sum")), "sum"),
        (
            lambda d: _edit(d / "1_Pooling/config.json", lambda c: c.update(pooling_mode_max_tokens=True)),
            "remove one",
        ),
        (lambda d: (d / "modules.json").write_text("[" * 100_000), "no JSON"),
        (lambda d: (d / "modules.json").write_text("{}"), "no list"),
        (
            lambda d: _edit(
                d / "config_sentence_transformers.json", lambda c: c.update(default_prompt_name="x")
            ),
            "'x'",
        ),
    ],
)
def test_damaged_files_are_named(change: Any, message: str, bert: Path, tmp_path: Path) -> None:
    build(bert, "cls").save(str(tmp_path))
    change(tmp_path)
    with pytest.raises(CheckpointError, match=message) as caught:
        read_sentence_options(tmp_path)
    assert "\n" not in str(caught.value)


def test_a_dense_layer_of_another_width(bert: Path, tmp_path: Path) -> None:
    build(bert, ("cls", "mean"), ("dense",)).save(str(tmp_path / "wide"))
    build(bert, "cls", ("dense",)).save(str(tmp_path / "narrow"))
    shutil.copytree(tmp_path / "wide" / "2_Dense", tmp_path / "narrow" / "2_Dense", dirs_exist_ok=True)
    with pytest.raises(CheckpointError, match="takes 64 numbers where the pooling gives 32"):
        SentenceEncoder.from_pretrained(tmp_path / "narrow")


def test_arguments_that_cannot_be_followed(bert: Path, tmp_path: Path) -> None:
    build(bert, "cls").save(str(tmp_path))
    encoder = SentenceEncoder.from_pretrained(tmp_path)
    with pytest.raises(ValueError, match="no prompt 'q'"):
        encoder.encode(TEXTS, prompt_name="q")
    with pytest.raises(ValueError, match="between 1 and 32"):
        encoder.encode(TEXTS, dimensions=33)
    with pytest.raises(ValueError, match="export it first"):
        SentenceEncoder.from_pretrained(tmp_path, backend="rknn")


def _edit(path: Path, change: Any) -> None:
    values = json.loads(path.read_text())
    change(values)
    path.write_text(json.dumps(values))
