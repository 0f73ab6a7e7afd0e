"""Tokenizer files that say more than vocab.txt: exact on the host, refused by name in the graph."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import AutoTokenizer, BertTokenizerFast

from tests.tiny_bert import TOKENS, write_checkpoint
from tfbert_npu import BertPreprocessor, BertTokenizer, export_onnx, load_npu, pull_from_hub
from tfbert_npu.errors import CheckpointError, VocabularyError

TEXTS = (
    "the <e1>cat</e1> sat covid19 😀",
    "Hello",
    "Héllo wörld’s TEST",
    "CAFÉ [E1] x [unused1] y",
    "",
    "a-b/c  d\u00a0e 人工",
)


def cases(shared: Path, name: str) -> Path:
    folder = shared / "cases" / name
    if not folder.is_dir():
        pytest.skip(f"the shared data has no cases/{name}")
    return folder


def theirs(directory: Path) -> Any:
    return AutoTokenizer.from_pretrained(str(directory))


def assert_exact(directory: Path, texts: Any = TEXTS) -> BertTokenizer:
    ours, other = BertTokenizer.from_pretrained(directory), theirs(directory)
    for text in texts:
        wanted = other(text, add_special_tokens=False, return_offsets_mapping=True)
        ids, offsets = ours.encode_with_offsets(text)
        assert ours.encode(text) == ids == wanted["input_ids"], text
        assert offsets == wanted["offset_mapping"], text
    assert len(ours) == len(other)
    return ours


@pytest.mark.parametrize(
    "name",
    [
        "added_tokens",
        "added_tokens_old_layout",
        "added_tokens_in_vocabulary",
        "normalizers/my-bert-nfc-case-kept",
        "normalizers/my-bert-replace-then-bert",
        "normalizers/my-bert-scratch-uncased",
        "normalizers/my-bert-whitespacesplit",
    ],
)
def test_files_of_the_field(shared: Path, name: str, tmp_path: Path) -> None:
    ours = assert_exact(cases(shared, name))
    ours.save_pretrained(tmp_path / "saved")
    again = assert_exact(tmp_path / "saved")
    assert [again.encode(text) for text in TEXTS] == [ours.encode(text) for text in TEXTS]
    with pytest.raises(
        VocabularyError, match=r"tokenizer has (added tokens|the normalizer|the pre_tokenizer).*graph"
    ):
        BertPreprocessor.from_pretrained(cases(shared, name))
    if name == "added_tokens":
        row = ours([TEXTS[0]])["input_word_ids"][0]
        assert list(row[:11]) == [2, 24, 38, 35, 111, 110, 112, 109, 113, 114, 3]


@pytest.mark.parametrize("name", ["japanese_char", "japanese_mecab"])
def test_japanese_is_refused_by_the_key(shared: Path, name: str) -> None:
    for door in (BertTokenizer.from_pretrained, BertPreprocessor.from_pretrained):
        with pytest.raises(VocabularyError, match="word_tokenizer_type"):
            door(cases(shared, name))


def test_two_doors(shared: Path, tmp_path: Path) -> None:
    directory = cases(shared, "two_doors")
    preprocessor = pull_from_hub(directory, component="preprocessor")
    for tokens in (
        BertTokenizer.from_pretrained(directory)(["Hello"])["input_word_ids"][0],
        BertPreprocessor.from_pretrained(directory)(["Hello"])["input_word_ids"][0],
        preprocessor(["Hello"])["input_word_ids"][0],
    ):
        assert list(np.asarray(tokens)[:3]) == [2, 109, 3]


# Siblings.


def write_bert(directory: Path, **files: Any) -> Path:
    directory.mkdir()
    (directory / "vocab.txt").write_text("\n".join(TOKENS) + "\n")
    files.setdefault("tokenizer_config", {"do_lower_case": True})
    files["tokenizer_config"].setdefault("tokenizer_class", "BertTokenizer")
    for name, value in files.items():
        (directory / f"{name}.json").write_text(json.dumps(value))
    return directory


N = len(TOKENS)


@pytest.mark.parametrize(
    "files",
    [
        {"added_tokens": {"<q>": N, "<p>": N + 1}},
        {"added_tokens": {"<q>": N}, "special_tokens_map": {"additional_special_tokens": ["<q>"]}},
        {
            "tokenizer_config": {
                "do_lower_case": False,
                "added_tokens_decoder": {
                    str(N): {"content": "XY-1", "special": False, "normalized": False, "lstrip": True},
                    str(N + 1): {"content": "abc", "special": False, "normalized": True, "single_word": True},
                },
            }
        },
        {"special_tokens_map": {"additional_special_tokens": ["cat", "[NEW]"]}},
    ],
    ids=["plain", "special", "decoder", "listed"],
)
def test_added_tokens_beside_a_vocabulary(tmp_path: Path, files: dict[str, Any]) -> None:
    texts = (*TEXTS, "a <q> b<p>c", "see XY-1 abc abcd  XY-1x", "the cat [NEW] sat")
    ours = assert_exact(write_bert(tmp_path / "t", **files), texts)
    assert ours.pipeline is not None
    ours.save_pretrained(tmp_path / "saved")
    assert_exact(tmp_path / "saved", texts)
    code = (
        "import sys; from tfbert_npu import BertTokenizer; "
        "print(BertTokenizer.from_pretrained(sys.argv[1]).encode(sys.argv[2]))"
    )
    run = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "saved"), texts[-2]],
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(run.stdout) == ours.encode(texts[-2])


NORMALIZERS = {
    "nfkc": normalizers.NFKC(),
    "strip": normalizers.Sequence([normalizers.Strip(), normalizers.Lowercase()]),
    "quotes": normalizers.Sequence(
        [normalizers.Replace("`", "'"), normalizers.BertNormalizer(lowercase=True)]
    ),
    "unclean": normalizers.BertNormalizer(clean_text=False),
}


@pytest.mark.parametrize("name", NORMALIZERS)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(texts=st.lists(st.text(max_size=30), min_size=1, max_size=6))
def test_other_normalizers_are_exact(tmp_path: Path, name: str, texts: list[str]) -> None:
    directory = tmp_path / "t"
    if not directory.exists():
        write_rules(directory, normalizer=NORMALIZERS[name])
        with pytest.raises(VocabularyError, match="normalizer"):
            BertPreprocessor.from_pretrained(directory)
    ours, other = (
        BertTokenizer.from_pretrained(directory),
        Tokenizer.from_file(str(directory / "tokenizer.json")),
    )
    for text in (*TEXTS, *texts):
        assert (
            ours.encode(text)
            == other.encode(text.encode("utf-8", "replace").decode(), add_special_tokens=False).ids
        )


def write_rules(directory: Path, **stages: Any) -> Path:
    directory.mkdir()
    vocab = {token: index for index, token in enumerate(TOKENS)}
    tokenizer = Tokenizer(models.WordPiece(vocab, unk_token="[UNK]"))
    tokenizer.normalizer = stages.get("normalizer", normalizers.BertNormalizer())
    tokenizer.pre_tokenizer = stages.get("pre_tokenizer", pre_tokenizers.BertPreTokenizer())
    tokenizer.save(str(directory / "tokenizer.json"))
    return directory


@pytest.mark.parametrize(
    "stage",
    [
        pre_tokenizers.Whitespace(),
        pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Digits()]),
    ],
)
def test_other_pre_tokenizers(tmp_path: Path, stage: Any) -> None:
    directory = write_rules(tmp_path / "t", pre_tokenizer=stage)
    other = Tokenizer.from_file(str(directory / "tokenizer.json"))
    ours = BertTokenizer.from_pretrained(directory)
    assert [ours.encode(text) for text in TEXTS] == [other.encode(text).ids for text in TEXTS]
    with pytest.raises(VocabularyError, match="the pre_tokenizer Whitespace"):
        BertPreprocessor.from_pretrained(directory)


def test_lower_case_cannot_change_a_foreign_normalizer(tmp_path: Path) -> None:
    directory = write_rules(tmp_path / "t", normalizer=normalizers.NFC())
    with pytest.raises(VocabularyError, match="normalizer NFC, which lower_case= cannot change"):
        BertTokenizer.from_pretrained(directory, lower_case=True)


def test_a_class_without_its_rules_is_refused(tmp_path: Path) -> None:
    directory = write_bert(tmp_path / "t", tokenizer_config={"tokenizer_class": "XLMRobertaTokenizer"})
    with pytest.raises(VocabularyError, match="tokenizer_class 'XLMRobertaTokenizer'"):
        BertTokenizer.from_pretrained(directory)


def test_added_ids_with_a_gap_are_refused(tmp_path: Path) -> None:
    directory = write_bert(tmp_path / "t", added_tokens={"<q>": N + 5})
    with pytest.raises(VocabularyError, match=rf"'<q>' the id {N + 5} where {N} is the next"):
        BertTokenizer.from_pretrained(directory)


def test_bert_s_own_special_tokens_stay_text(tmp_path: Path) -> None:
    directory = write_bert(tmp_path / "t", added_tokens={"<q>": N})
    sep = TOKENS.index("[SEP]")
    assert sep not in BertTokenizer.from_pretrained(directory).encode("a [SEP] <q> b")
    allowed = BertTokenizer.from_pretrained(directory, allow_special_tokens={"[MASK]"})
    assert TOKENS.index("[MASK]") in allowed.encode("a [MASK] <q>")


# Special tokens of other names, and Unigram models.


def write_unigram(directory: Path) -> Path:
    """XLM-R's form: `<s> a </s>`, pieces with a block for a blank."""
    directory.mkdir(exist_ok=True)
    letters = "abcdefghijklmnopqrstuvwxyz人工智能é"
    pieces = [("<s>", 0.0), ("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -3.0)]
    pieces += [(f"▁{word}", -2.0) for word in ("the", "cat", "sat")] + [(one, -5.0) for one in letters]
    tokenizer = Tokenizer(models.Unigram(pieces, unk_id=3))
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    ids = [("<s>", 0), ("</s>", 2)]
    tokenizer.post_processor = processors.TemplateProcessing("<s> $A </s>", "<s> $A </s> </s> $B </s>", ids)
    tokenizer.decoder = decoders.Metaspace()
    tokenizer.add_special_tokens(["<mask>"])
    tokenizer.save(str(directory / "tokenizer.json"))
    roles = {"cls": "<s>", "sep": "</s>", "pad": "<pad>", "unk": "<unk>", "mask": "<mask>"}
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        **{f"{role}_token": name for role, name in roles.items()},
    }
    (directory / "tokenizer_config.json").write_text(json.dumps(config))
    return directory


def test_a_unigram_tokenizer(tmp_path: Path) -> None:
    directory = write_unigram(tmp_path / "t")
    ours, other = BertTokenizer.from_pretrained(directory), theirs(directory)
    texts = ["the cat sat", "ｔｈｅ café 人工智能 😀", ""]
    rows = ours(texts, seq_length=16)
    wanted = other(texts, padding="max_length", max_length=16)
    np.testing.assert_array_equal(rows["input_word_ids"], wanted["input_ids"])
    np.testing.assert_array_equal(rows["input_mask"], wanted["attention_mask"])
    assert ours.vocabulary.mask_id == other.mask_token_id
    assert ours.decode(ours.encode("the cat sat")) == "the cat sat"
    with pytest.raises(ValueError, match="packs two texts in another way"):
        ours(["a"], ["b"])
    with pytest.raises(VocabularyError, match="a Unigram model"):
        BertPreprocessor.from_pretrained(directory)
    ours.save_pretrained(tmp_path / "saved")
    again = BertTokenizer.from_pretrained(tmp_path / "saved")
    np.testing.assert_array_equal(again(texts, seq_length=16)["input_word_ids"], rows["input_word_ids"])


def test_a_model_with_a_unigram_tokenizer_is_exported(tmp_path: Path) -> None:
    directory = write_unigram(write_checkpoint(tmp_path / "m"))
    (directory / "vocab.txt").unlink()
    export_onnx(directory, tmp_path / "out")
    tokenizer = BertTokenizer.from_pretrained(tmp_path / "out")
    assert tokenizer.vocabulary.pad_id == 1
    with load_npu(tmp_path / "out", "onnx") as model:
        assert model(tokenizer(["the cat"], seq_length=8))["pooled_output"].shape == (1, 32)


def test_wordpiece_with_other_special_names(tmp_path: Path) -> None:
    renamed = {"[CLS]": "<s>", "[SEP]": "</s>", "[PAD]": "<pad>", "[UNK]": "<unk>", "[MASK]": "<mask>"}
    directory = write_bert(tmp_path / "t")
    (directory / "vocab.txt").write_text("\n".join(renamed.get(token, token) for token in TOKENS) + "\n")
    roles = {f"{key[1:-1].lower()}_token": name for key, name in renamed.items()}
    (directory / "tokenizer_config.json").write_text(json.dumps({"do_lower_case": True, **roles}))
    rows = BertTokenizer.from_pretrained(directory)(["The cat ☃"], seq_length=8)
    other = BertTokenizerFast(str(directory / "vocab.txt"), do_lower_case=True, **roles)
    wanted = other(["The cat ☃"], padding="max_length", max_length=8)["input_ids"]
    np.testing.assert_array_equal(rows["input_word_ids"], wanted)
    with pytest.raises(VocabularyError, match="special tokens of other names"):
        BertPreprocessor.from_pretrained(directory)


def test_an_artifact_takes_the_files_along(tmp_path: Path) -> None:
    directory = write_checkpoint(tmp_path / "m")
    (directory / "added_tokens.json").write_text(json.dumps({"<q>": N}))
    export_onnx(directory, tmp_path / "out")
    shutil.rmtree(directory)
    assert BertTokenizer.from_pretrained(tmp_path / "out").encode("a <q>")[-1] == N


@pytest.mark.parametrize(
    "change",
    [
        {"normalizer": 3},
        {"pre_tokenizer": ["Whitespace"]},
        {"normalizer": {"type": "Sequence", "normalizers": [3]}},
        {"pre_tokenizer": {"type": "Sequence", "pretokenizers": 7}},
        {"post_processor": {"type": "TemplateProcessing", "pair": [{}]}},
        {"post_processor": {"type": "TemplateProcessing", "pair": 5}},
        {"model": 1},
        {"model": {"type": "WordPiece", "vocab": 5}},
        {"added_tokens": [{"content": "x"}]},
        {"added_tokens": {"a": 1}},
        {"normalizer": {"type": "Unknown"}},
    ],
)
def test_damaged_rules_are_one_sentence_with_the_file(tmp_path: Path, change: dict[str, Any]) -> None:
    directory = write_rules(tmp_path / "t", normalizer=normalizers.NFC())
    path = directory / "tokenizer.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises((VocabularyError, CheckpointError), match=str(directory)):
        BertTokenizer.from_pretrained(directory)


def test_a_nesting_without_end_is_one_sentence(tmp_path: Path) -> None:
    directory = write_rules(tmp_path / "t")
    (directory / "tokenizer_config.json").write_text("[" * 100_000)
    with pytest.raises(CheckpointError, match="is not JSON"):
        BertTokenizer.from_pretrained(directory)
