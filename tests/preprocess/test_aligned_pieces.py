"""Remembered chunks give what the whole text gives, and long words what `tokenizers` gives."""

from __future__ import annotations

import random
import re
import sys

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tokenizers.models import WordPiece

from tfbert_npu.preprocess.aligned_pieces import SPACES, AlignedPieces
from tfbert_npu.preprocess.alignment import Aligner
from tfbert_npu.preprocess.characters import is_removed, is_space
from tfbert_npu.preprocess.options import TextOptions
from tfbert_npu.preprocess.vocabulary import Vocabulary
from tfbert_npu.preprocess.wordpiece import WordPieces

LETTERS = "abcσςéd中が"
VOCABULARY = Vocabulary(
    ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *LETTERS, *(f"##{c}" for c in LETTERS), "ab", "##abc", ".")
)

# Sigmas, marks that survive and change places, white space of every kind, ideographs, what is removed.
HARD = st.text(
    st.sampled_from("abcdΑΣς\u0301\u0323\u0f71\u0f74e\u0345. \t\n\u3000\u2028\x1c\x85\u200b中\u2f00ガé'")
)


@settings(max_examples=300, deadline=None)
@given(HARD | st.text(max_size=30), st.booleans(), st.sampled_from([None, False]), st.booleans())
@example("ΑΣ中\u0323\u0301Σ", True, None, True)
@example("ΑΣ\u200b Σ\u0301", True, None, True)
def test_chunks_say_what_the_text_says(text: str, lower: bool, accents: bool | None, chinese: bool) -> None:
    options = TextOptions(lower_case=lower, strip_accents=accents, tokenize_chinese_chars=chinese)
    pieces = AlignedPieces(VOCABULARY, WordPieces(VOCABULARY), options)
    ids: list[int] = []
    offsets: list[tuple[int, int]] = []
    pieces.add(text, 7, ids, offsets)
    words = Aligner(options).words(text)
    assert ids == [one for word in words for one in WordPieces(VOCABULARY)[word.text]]
    whole = {(word.starts[0], max(word.ends)) for word in words}
    known = {start for word in words for start in word.starts}, {end for word in words for end in word.ends}
    for one, (start, end) in zip(ids, offsets, strict=True):
        if one == VOCABULARY.unk_id:
            assert (start - 7, end - 7) in whole
        assert start - 7 in known[0]
        assert end - 7 in known[1]
    assert offsets == sorted(offsets)


def test_the_white_space_that_ends_a_word() -> None:
    found = set(re.findall(f"[{SPACES}]", "".join(map(chr, range(sys.maxunicode + 1)))))
    assert found == {c for c in map(chr, range(sys.maxunicode + 1)) if is_space(c) and not is_removed(c)}


@pytest.mark.parametrize("length", [47, 48, 49, 120, 199, 200, 201, 5000])
def test_long_words_have_the_pieces_of_tokenizers(length: int) -> None:
    rng = random.Random(length)
    theirs = WordPiece(VOCABULARY.ids, unk_token="[UNK]", max_input_chars_per_word=200)
    for letters in ("abc", "ab", LETTERS, "abz"):
        word = "".join(rng.choice(letters) for _ in range(length))
        assert WordPieces(VOCABULARY)[word] == tuple(token.id for token in theirs.tokenize(word))
