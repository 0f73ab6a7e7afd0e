"""What users of transformers expect of a tokenizer: `tokenize`, `decode`, `len`, and a word on their arguments."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tiny_bert

from tfbert_npu import BertTokenizer
from tfbert_npu.inputs import check_inputs

TEXTS = ["The cat sat, in Berlin!", "who's there? don't", "zzz-the dogs.", "", "ß 中"]


@pytest.fixture
def theirs(tmp_path: Path) -> object:
    transformers = pytest.importorskip("transformers")
    (tmp_path / "vocab.txt").write_text("\n".join(tiny_bert.TOKENS) + "\n")
    return transformers.BertTokenizerFast(str(tmp_path / "vocab.txt"), do_lower_case=True)


@pytest.mark.parametrize("text", TEXTS)
def test_pieces_and_texts_are_those_of_transformers(theirs: object, text: str) -> None:
    ours = tiny_bert.tokenizer()
    assert len(ours) == len(theirs)  # type: ignore[arg-type]
    assert ours.tokenize(text) == theirs.tokenize(text)  # type: ignore[attr-defined]
    ids = ours(text, seq_length=24)["input_word_ids"][0]
    for skip in (False, True):
        assert ours.decode(ids, skip) == theirs.decode(ids, skip_special_tokens=skip)  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"max_length": 8}, "max_length is seq_length="),
        ({"return_tensors": "np"}, "return_tensors is left out: the arrays are numpy's"),
        (
            {"truncation": True, "stuff": 1},
            "truncation is trimming=, and it always happens, stuff is unknown",
        ),
    ],
)
def test_their_arguments_are_refused_with_ours(arguments: dict[str, object], message: str) -> None:
    tokenizer: BertTokenizer = tiny_bert.tokenizer()
    with pytest.raises(TypeError, match=message):
        tokenizer("a", **arguments)  # type: ignore[arg-type]


def test_their_inputs_are_refused_with_ours() -> None:
    ids = np.ones((1, 4), np.int32)
    inputs = {"input_ids": ids, "attention_mask": ids, "token_type_ids": ids}
    with pytest.raises(ValueError, match="here input_ids is input_word_ids, attention_mask is input_mask, "):
        check_inputs(inputs, tiny_bert.config())
    with pytest.raises(ValueError, match="got list; BertTokenizer and BertPreprocessor make it of texts"):
        check_inputs(["a text"], tiny_bert.config())
