"""Both implementations against the reference on text of every kind, and against each other."""

from __future__ import annotations

import json
import random
from collections.abc import Iterable, Iterator
from functools import lru_cache
from itertools import islice

import numpy as np
import pytest
import tensorflow as tf
from google_reference import basic_tokens, token_ids
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tokenization_fuzz import every_character, random_bytes, random_text, telling_vocabulary

from tfbert_npu.preprocess import (
    BertPreprocessor,
    BertTokenizer,
    TextOptions,
    Vocabulary,
    byte_offsets_to_characters,
)

DIALECTS = ["uncased", "cased", "tf_text uncased", "tf_text cased"]


@lru_cache
def pair(kind: str) -> tuple[BertTokenizer, BertPreprocessor]:
    dialect = "tf_text" if kind.startswith("tf_text") else "bert"
    options = TextOptions(dialect, lower_case=kind.endswith("uncased"))
    tokens = [token for token in telling_vocabulary() if dialect == "bert" or "\0" not in token]
    vocabulary = Vocabulary(tuple(tokens))
    return BertTokenizer(vocabulary, options), BertPreprocessor(vocabulary, options)


def batches(texts: Iterable[bytes], size: int) -> Iterator[list[bytes]]:
    texts = iter(texts)
    while batch := list(islice(texts, size)):
        yield batch


def graph_ids(layer: BertPreprocessor, texts: list[bytes]) -> list[list[int]]:
    """Ids from the path that calls take, not the one that aligns."""
    length = 1 << (max(map(len, texts), default=0) * 4 + 2).bit_length()  # few lengths, few traces
    packed = layer(texts, seq_length=length)
    widths = packed["input_mask"].numpy().sum(1)
    assert (widths < length).all()
    return [
        row[1 : width - 1].tolist()
        for row, width in zip(packed["input_word_ids"].numpy(), widths, strict=True)
    ]


def check(kind: str, texts: list[bytes]) -> None:
    host, layer = pair(kind)
    ours = [host.encode(text) for text in texts]
    assert ours == graph_ids(layer, texts)
    assert ours == layer.tokenize(texts).merge_dims(1, 2).to_list()
    if kind.startswith("tf_text"):
        return
    ids = host.vocabulary.ids
    assert ours == [token_ids(text, ids, host.options.lower_case) for text in texts]
    check_offsets(host, layer, texts)


def check_offsets(host: BertTokenizer, layer: BertPreprocessor, texts: list[bytes]) -> None:
    graph = [part.merge_dims(1, 2).to_list() for part in layer.tokenize_with_offsets(texts)]
    for text, ids, starts, limits in zip(texts, *graph, strict=True):
        spans = list(zip(starts, limits, strict=True))
        assert (ids, spans) == host.encode_with_offsets(text, "bytes")
        characters = host.encode_with_offsets(text)[1]
        decoded = text.decode("utf-8", "replace")
        assert byte_offsets_to_characters(text, spans).tolist() == [list(span) for span in characters]
        assert all(0 <= start < end <= len(decoded) for start, end in characters)
        assert starts == sorted(starts)
        assert limits == sorted(limits)


def fuzz(kind: str, count: int, seed: int) -> None:
    generator = random.Random(seed)
    for batch in batches((random_bytes(generator) for _ in range(count)), 2000):
        check(kind, batch)


@pytest.mark.parametrize("kind", DIALECTS)
def test_fuzz(kind: str):
    fuzz(kind, 1500, 20250101)


@pytest.mark.slow
@pytest.mark.parametrize("kind", DIALECTS)
def test_long_fuzz(kind: str):
    fuzz(kind, 20_000, 7)


@pytest.mark.slow
@pytest.mark.parametrize("kind", DIALECTS)
def test_every_code_point(kind: str):
    for batch in batches((text.encode() for text in every_character()), 8000):
        check(kind, batch)


TEXTS = st.one_of(
    st.text(max_size=40).map(str.encode),
    st.text(st.characters(max_codepoint=0x17F), max_size=40).map(str.encode),
    st.text(st.sampled_from("ΣσΑ'.·\u0345\u02b0\u0301 \u00ad中\0"), max_size=12).map(str.encode),
    st.text(
        st.sampled_from("a \u302e\u302f\U0001d165\U0001d16d\u0301\u034f\U0001d15e\u1b44é"), max_size=12
    ).map(str.encode),
    st.binary(max_size=30),
)


@pytest.mark.parametrize("kind", DIALECTS)
@settings(deadline=None, max_examples=30)
@given(texts=st.lists(TEXTS, min_size=1, max_size=20))
@example(texts=[b""])
@example(
    texts=[
        "ΑΣ".encode(),
        "Α\u00adΣ'".encode(),
        "ΑΣΑ".encode(),
        "中Σ".encode(),
        "ΑΣ".encode() + b"\xff" + "Α".encode(),
    ]
)
@example(
    texts=[b"x" * 200, b"x" * 201, ("é" * 200).encode(), ("e\u0301" * 200).encode(), ("a." * 300).encode()]
)
def test_any_bytes(kind: str, texts: list[bytes]):
    check(kind, texts)


@settings(deadline=None, max_examples=25)
@given(text=st.text(st.one_of(st.characters(), st.characters(categories=["Cs"])), max_size=30))
def test_lone_surrogates_stand_for_invalid_bytes(text: str):
    data = text.encode("utf-8", "surrogatepass")
    for kind in DIALECTS:
        host, layer = pair(kind)
        assert host.encode(text) == host.encode(data) == graph_ids(layer, [data])[0]
        assert host.encode(text) == layer.tokenize([text]).merge_dims(1, 2).to_list()[0]
    ids, spans = pair("uncased")[0].encode_with_offsets(text)
    assert all(0 <= start < end <= len(text) for start, end in spans)
    assert ids == pair("uncased")[0].encode(text)


@pytest.mark.parametrize(
    "text", [b"\xff\xfe", b"a\xc3(b", b"\xe2\x82", b"x\xf0\x9f\x98", b"sur\xed\xa0\x80rogate", b"\xc0\x80"]
)
def test_invalid_utf8_is_dropped_as_by_google(text: bytes):
    for kind in ("uncased", "cased"):
        check(kind, [text, text + b"a", b"a " + text])


@pytest.mark.parametrize("lower_case", [True, False])
def test_special_tokens_in_text(lower_case: bool):
    vocabulary = Vocabulary(tuple(telling_vocabulary()))
    allowed = TextOptions(lower_case=lower_case, allow_special_tokens={"[MASK]", "[UNK]"})
    host, layer = BertTokenizer(vocabulary, allowed), BertPreprocessor(vocabulary, allowed)
    ids, mask = vocabulary.ids, vocabulary.mask_id
    texts = [
        "[MASK]",
        "a[MASK]b [SEP] [mask]",
        "[[MASK]][MASK",
        "ΑΣ[MASK]Α",
        "\U000f0002\U000f0001 [MASK]",
        "MASK] é [UNK]",
    ]
    want = [
        [mask],
        [ids["a"], mask, *token_ids("b [SEP] [mask]", ids, lower_case)],
        [ids["["], mask, ids["]"], *token_ids("[MASK", ids, lower_case)],
        [*token_ids("ΑΣ", ids, lower_case), mask, *token_ids("Α", ids, lower_case)],
        [vocabulary.unk_id, mask],
        [*token_ids("MASK] é", ids, lower_case), vocabulary.unk_id],
    ]
    data = [text.encode() for text in texts]
    assert [host.encode(text) for text in texts] == graph_ids(layer, data) == want
    check_offsets(host, layer, data)
    plain = TextOptions(lower_case=lower_case)
    for text in texts:
        assert BertTokenizer(vocabulary, plain).encode(text) == token_ids(text, ids, lower_case)
        assert mask not in token_ids(text, ids, lower_case)
    generator = random.Random(3)
    many = [random_text(generator).encode() for _ in range(500)]
    assert [host.encode(text) for text in many] == graph_ids(layer, many)


@pytest.mark.parametrize(
    "options",
    [
        {"lower_case": True, "strip_accents": False},
        {"lower_case": False, "strip_accents": True},
        {"lower_case": True, "tokenize_chinese_chars": False},
        {"lower_case": False, "tokenize_chinese_chars": False},
    ],
)
def test_other_switches_agree(options: dict):
    vocabulary = Vocabulary(tuple(telling_vocabulary()))
    host, layer = (
        BertTokenizer(vocabulary, TextOptions(**options)),
        BertPreprocessor(vocabulary, TextOptions(**options)),
    )
    generator = random.Random(11)
    texts = [random_bytes(generator) for _ in range(1500)]
    assert [host.encode(text) for text in texts] == graph_ids(layer, texts)
    check_offsets(host, layer, texts)


def test_random_vocabularies():
    generator = random.Random(5)
    alphabet = "abcdeéß.ςσ中한\u0301-#[]"
    for _ in range(5):
        pieces = {"".join(generator.choices(alphabet, k=generator.randrange(1, 5))) for _ in range(60)}
        tokens = [
            "[PAD]",
            "[UNK]",
            "[CLS]",
            "[SEP]",
            *sorted(pieces | {f"##{piece}" for piece in pieces}),
            "##",
            " x",
        ]
        vocabulary = Vocabulary(tuple(dict.fromkeys(tokens)))
        host, layer = BertTokenizer(vocabulary), BertPreprocessor(vocabulary)
        texts = [
            "".join(generator.choices(alphabet + " Σ", k=generator.randrange(12))).encode()
            for _ in range(300)
        ]
        want = [token_ids(text, vocabulary.ids) for text in texts]
        assert [host.encode(text) for text in texts] == graph_ids(layer, texts) == want
        check_offsets(host, layer, texts)


def test_published_vectors(golden, vocabulary_directory):
    ran = 0
    for vector in golden("published_vectors.json"):
        lower_case = vector.get("do_lower_case", "uncased" in vector.get("vocab_name", ""))
        options = TextOptions(
            lower_case=lower_case,
            strip_accents=vector.get("strip_accents"),
            tokenize_chinese_chars=vector.get("tokenize_chinese_chars", True),
            allow_special_tokens=frozenset({"[UNK]"} if "never_split" in vector else ()),
        )
        if vector["kind"] == "char_class":
            for char in vector["whitespace"]:
                assert BertTokenizer(small("a b")).encode(f"a{char}b") == [4, 5]
            for char in vector["punctuation"]:
                assert len(BertTokenizer(small("a b")).encode(f"a{char}b")) == 3
            for char in vector["control"]:
                assert BertTokenizer(small("ab")).encode(f"a{char}b") == [4]
            continue
        ran += 1
        if vector["kind"] == "offsets":
            tokenizer = BertTokenizer.from_pretrained(
                vocabulary_directory(vector["vocab_name"]), allow_special_tokens={"[MASK]"}
            )
            ids, offsets = tokenizer.encode_with_offsets(vector["text"])
            assert [tokenizer.vocabulary.tokens[piece] for piece in ids] == vector["expected"][1:-1]
            assert [list(span) for span in offsets] == vector["offsets"][1:-1]
            continue
        if "vocab_name" in vector:
            vocabulary = Vocabulary.from_directory(vocabulary_directory(vector["vocab_name"]))
        elif "vocab" in vector:
            tokens = dict.fromkeys([*vector["vocab"], "[UNK]", "[CLS]", "[SEP]", "[PAD]"])
            vocabulary = Vocabulary(tuple(tokens))
        else:  # basic tokens: a vocabulary of exactly those words
            vocabulary = small(" ".join(word for word in vector["expected"] if word != "[UNK]"))
        expected = [vocabulary.ids[token] for token in vector["expected"]]
        assert BertTokenizer(vocabulary, options).encode(vector["text"]) == expected
        assert graph_ids(BertPreprocessor(vocabulary, options), [vector["text"].encode()]) == [expected]
    assert ran > 15


def small(words: str) -> Vocabulary:
    return Vocabulary(("[PAD]", "[UNK]", "[CLS]", "[SEP]", *dict.fromkeys(words.split())))


def test_the_reference_itself():
    assert basic_tokens("Héllo, İstanbul ΑΣ\u200b\x00 中国!") == [
        "hello",
        ",",
        "istanbul",
        "ας",
        "中",
        "国",
        "!",
    ]
    assert basic_tokens("Héllo, x", lower_case=False) == ["Héllo", ",", "x"]


@pytest.mark.slow
def test_the_recorded_character_table_is_tensorflow_texts():
    from importlib import resources

    import tensorflow_text

    from tfbert_npu.preprocess.generate_tf_text_table import describe_characters

    recorded = json.loads((resources.files("tfbert_npu.preprocess") / "tf_text_characters.json").read_text())
    if recorded["version"] != tensorflow_text.__version__:
        pytest.skip(f"recorded from tensorflow-text {recorded['version']}")
    assert describe_characters() == recorded


def test_character_table_commutes_with_decomposition():
    """What lets the graph decompose first, where the order of marks matters, and expand afterwards."""
    import unicodedata

    from tfbert_npu.preprocess.characters import CharacterRules

    expand = CharacterRules(TextOptions()).expand
    for point in range(0x110000):
        char = chr(point)
        decomposed = unicodedata.normalize("NFD", char)
        if decomposed != char:
            assert expand(char).split() == "".join(map(expand, decomposed)).split()


def test_ids_are_int32_and_spans_int64():
    _, layer = pair("uncased")
    ids, starts, limits = layer.tokenize_with_offsets(tf.constant(["a b"]))
    assert (ids.dtype, starts.dtype, limits.dtype) == (tf.int32, tf.int64, tf.int64)
    np.testing.assert_array_equal(limits.flat_values, [1, 3])
