"""Pre-training: rows and pairs of raw text, dynamic masks, and what a tiny model learns from them."""

import json
from collections import Counter

import numpy as np
import pytest
import tiny_bert

from tfbert_npu import BertForMaskedLM, BertForPreTraining, BertTokenizer
from tfbert_npu.tasks import fill_mask
from tfbert_npu.train.batches import Batches, BatchOptions
from tfbert_npu.train.features import IGNORED, Feature
from tfbert_npu.train.loop import dataset
from tfbert_npu.train.options import TrainOptions
from tfbert_npu.train.pre_training import evaluate_masked, masking, pre_train
from tfbert_npu.train.raw_text import NextSentenceBatches, TextOptions, documents_of, text_rows

TOKENIZER = tiny_bert.tokenizer()
VOCABULARY = TOKENIZER.vocabulary
DOCUMENTS = [["the cat sat.", "the cat ran."], ["anna sat in berlin."] * 3, ["who?", "the dog!"]] * 4


def test_documents_are_parted_by_empty_lines(tmp_path):
    (tmp_path / "a.txt").write_text("\n\na\nb\n\n\nc\n")
    assert list(documents_of(tmp_path / "a.txt")) == [["a", "b"], ["c"]]


@pytest.mark.parametrize("seq_length", [5, 8, 64])
def test_rows_hold_all_pieces_in_order(seq_length):
    rows = list(text_rows(TOKENIZER, DOCUMENTS, seq_length))
    assert max(row.length for row in rows) <= seq_length
    assert all(row.ids[0] == VOCABULARY.cls_id and row.ids[-1] == VOCABULARY.sep_id for row in rows)
    expected = [i for lines in DOCUMENTS for line in lines for i in TOKENIZER.encode(line)]
    assert [i for row in rows for i in row.ids[1:-1]] == expected


@pytest.mark.parametrize("cache", [True, False])
def test_pairs_are_drawn_anew_for_every_epoch_and_as_many(cache):
    options = BatchOptions(batch_size=4, seq_length=24)
    batches = NextSentenceBatches(TOKENIZER, lambda: iter(DOCUMENTS), options, cache=cache)
    first, again, second = (
        [(tuple(f.ids), tuple(f.types), f.label) for f in batches.features_of(epoch)] for epoch in (0, 0, 1)
    )
    assert first == again != second
    for epoch in range(12):  # the draws of an epoch alone give more or fewer
        assert len(list(batches.features_of(epoch))) == batches.rows
    assert {label for *_, label in first} == {0, 1}
    for ids, types, _ in first + second:
        assert len(ids) == len(types) <= 24
        assert ids[0] == VOCABULARY.cls_id
        assert [i for i, token in enumerate(ids) if token == VOCABULARY.sep_id] == [
            types.index(1) - 1,
            len(ids) - 1,
        ]
        assert list(types) == sorted(types)
    with pytest.raises(ValueError, match="two documents or more"):
        NextSentenceBatches(TOKENIZER, lambda: [["a", "b"]], BatchOptions())


def test_masks_change_with_the_epoch_and_not_with_the_run():
    rows = [Feature([2, *range(5, 40), 3], [0] * 37, 0)] * 8
    batches = Batches(lambda: rows, BatchOptions(batch_size=8, seq_length=40))
    transform = masking(TOKENIZER, TextOptions("x"), 40, seed=0)

    def masked(epoch):
        inputs, labels = next(iter(dataset(batches, epoch, transform=transform)))
        return {name: np.asarray(array) for name, array in inputs.items()}, np.asarray(labels)

    inputs, labels = masked(0)
    again, same_labels = masked(0)
    other, _ = masked(1)
    np.testing.assert_array_equal(inputs["input_word_ids"], again["input_word_ids"])
    np.testing.assert_array_equal(labels, same_labels)
    assert (inputs["masked_lm_positions"] != other["masked_lm_positions"]).any()
    known = labels != IGNORED
    assert known.sum(1).tolist() == [round(0.15 * 35)] * 8
    for row in range(8):
        positions = inputs["masked_lm_positions"][row][known[row]]
        original = np.array(rows[row].ids)
        np.testing.assert_array_equal(original[positions], labels[row][known[row]])
        untouched = np.setdiff1d(np.arange(37), positions)
        np.testing.assert_array_equal(inputs["input_word_ids"][row][untouched], original[untouched])


def test_perplexity_of_a_model_that_knows_nothing():
    rows = list(text_rows(TOKENIZER, DOCUMENTS, 24))
    batches = Batches(lambda: rows, BatchOptions(batch_size=4, seq_length=24))

    class Uniform:
        def predict_on_batch(self, inputs):
            return np.zeros((*inputs["masked_lm_positions"].shape, len(VOCABULARY)), np.float32)

    found = evaluate_masked(Uniform(), batches, masking(TOKENIZER, TextOptions("x"), 24, 0), len(batches))
    assert found["perplexity"] == pytest.approx(len(VOCABULARY), rel=1e-4)


def write_model(directory, **changes):
    directory.mkdir()
    tiny_bert.config(**changes).to_json(directory / "config.json")
    (directory / "vocab.txt").write_text("\n".join(tiny_bert.TOKENS) + "\n")
    (directory / "tokenizer_config.json").write_text(json.dumps({"do_lower_case": True}))
    return directory


def write_text(path, count, seed):
    """Sentences whose words follow from each other, in two kinds."""
    rng = np.random.default_rng(seed)
    kinds = [("the cat sat in berlin.", "the cat ran."), ("who, anna?", "anna, the good dog!")]
    documents = [kinds[rng.integers(2)] for _ in range(count)]
    path.write_text("\n\n".join("\n".join(lines) for lines in documents) + "\n")
    return path


@pytest.mark.slow
def test_perplexity_falls_tenfold_and_words_are_filled_in(tmp_path):
    model = write_model(tmp_path / "model", hidden_dropout_prob=0.0)
    text = TextOptions(write_text(tmp_path / "train.txt", 400, 0), write_text(tmp_path / "dev.txt", 40, 1))
    result = pre_train(
        model,
        text,
        tmp_path / "out",
        new=True,
        batching=BatchOptions(batch_size=16, seq_length=24),
        options=TrainOptions(epochs=12, learning_rate=5e-3),
        progress=False,
    )
    assert result.best["dev_perplexity"] < len(VOCABULARY) / 10
    head = BertForMaskedLM.from_pretrained(tmp_path / "out")
    tokenizer = BertTokenizer.from_pretrained(tmp_path / "out")
    pieces = Counter(i for lines in documents_of(text.dev) for line in lines for i in tokenizer.encode(line))
    always_the_most_frequent = max(pieces.values()) / pieces.total()
    assert result.best["dev_mlm_accuracy"] > 1.5 * always_the_most_frequent
    (((filled, *_),),) = fill_mask(head, tokenizer, ["the cat [MASK] in berlin."])
    assert filled.token_str == "sat"


def test_next_sentence_pre_training_goes_on_from_a_checkpoint(tmp_path):
    model = write_model(tmp_path / "model")
    BertForPreTraining(tiny_bert.config()).save_pretrained(model)
    path = write_text(tmp_path / "train.txt", 12, 0)
    result = pre_train(
        model,
        TextOptions(path, path, next_sentence=True),
        tmp_path / "out",
        batching=BatchOptions(batch_size=4, seq_length=24),
        options=TrainOptions(epochs=1),
        progress=False,
    )
    assert {"dev_perplexity", "dev_mlm_accuracy", "dev_nsp_accuracy"} <= result.best.keys()
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config["architectures"] == ["BertForPreTraining"]


def test_a_vocabulary_larger_than_the_model(tmp_path):
    model = write_model(tmp_path / "model", vocab_size=20)
    path = write_text(tmp_path / "train.txt", 3, 0)
    with pytest.raises(ValueError, match="says vocab_size 20 but its vocabulary has"):
        pre_train(model, TextOptions(path), tmp_path / "out", new=True, progress=False)
    (tmp_path / "empty.txt").write_text("\n")
    with pytest.raises(ValueError, match=r"short_seq_prob must be in \[0, 1\], got 2"):
        TextOptions(path, short_seq_prob=2)
    with pytest.raises(ValueError, match="data set is empty"):
        pre_train(model, TextOptions(tmp_path / "empty.txt"), tmp_path / "out", new=True, progress=False)
