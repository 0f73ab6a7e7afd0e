from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from tfbert_npu.errors import VocabularyError
from tfbert_npu.preprocess import BertPreprocessor, TokenMasker, Vocabulary, next_sentence_pairs

SPECIAL = ["[PAD]", "[unused0]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
VOCABULARY = Vocabulary((*SPECIAL, *"abcdefghij", *(f"##{c}" for c in "abcdefghij")))
SPECIAL_IDS = set(range(len(SPECIAL)))


@pytest.fixture(scope="module")
def batch() -> dict[str, tf.Tensor]:
    random = np.random.default_rng(0)
    words = ["".join(random.choice([*"abcdefghij"], random.integers(1, 6))) for _ in range(3000)]
    texts = [" ".join(random.choice(words, random.integers(0, 40))) for _ in range(510)]
    texts += ["", "zzz [MASK] z"]  # nothing to choose; only [UNK] and brackets
    texts[0] = "a bcd e " * 20
    return BertPreprocessor(VOCABULARY, seq_length=64)([texts, [" ".join(t.split()[:9]) for t in texts]])


def masked(batch, seed=(1, 2), **options) -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray]:
    """Outputs; chosen positions as bool [B, L]; inputs before."""
    got = {name: value.numpy() for name, value in TokenMasker(VOCABULARY, **options)(batch, seed).items()}
    before = batch["input_word_ids"].numpy()
    chosen = np.zeros(before.shape, bool)
    rows, columns = np.nonzero(got["masked_lm_weights"])
    chosen[rows, got["masked_lm_positions"][rows, columns]] = True
    assert chosen.sum() == len(rows)
    np.testing.assert_array_equal(
        got["masked_lm_ids"][rows, columns], before[rows, got["masked_lm_positions"][rows, columns]]
    )
    return got, chosen, before


def ordinary(batch) -> np.ndarray:
    ids = batch["input_word_ids"].numpy()
    return (batch["input_mask"].numpy() == 1) & ~np.isin(ids, list(SPECIAL_IDS))


@pytest.mark.parametrize("whole_words", [False, True])
def test_only_ordinary_pieces_are_chosen_and_changed(batch, whole_words: bool):
    got, chosen, before = masked(batch, whole_words=whole_words)
    assert not (chosen & ~ordinary(batch)).any()
    np.testing.assert_array_equal(got["input_word_ids"][~chosen], before[~chosen])
    for name in ("input_mask", "input_type_ids"):
        np.testing.assert_array_equal(got[name], batch[name])
    assert got["masked_lm_positions"].dtype == got["masked_lm_ids"].dtype == np.int32
    assert got["masked_lm_weights"].dtype == np.float32
    assert set(np.unique(got["masked_lm_weights"])) == {0.0, 1.0}
    unused = got["masked_lm_weights"] == 0
    assert not got["masked_lm_positions"][unused].any()
    assert not got["masked_lm_ids"][unused].any()
    assert (np.diff(np.where(unused, 1000, got["masked_lm_positions"]), axis=1)[~unused[:, 1:]] > 0).all()


def test_the_number_chosen_is_the_share_of_each_row(batch):
    _, chosen, _ = masked(batch, mask_rate=0.15, max_predictions=5)
    counts = ordinary(batch).sum(1)
    np.testing.assert_array_equal(
        chosen.sum(1),
        np.minimum(np.clip(np.round(counts.astype(np.float32) * np.float32(0.15)), 1, 5), counts),
    )
    assert (counts == 0).any()
    assert (chosen.sum(1) == 5).any()


def test_every_position_is_as_likely(batch):
    row = {name: tf.repeat(value[:1], 4000, 0) for name, value in batch.items()}
    _, chosen, _ = masked(row)
    share = chosen.mean(0)[ordinary(batch)[0]]
    assert np.abs(share - share.mean()).max() < 5 * np.sqrt(share.mean() / 4000)


def test_eighty_ten_ten(batch):
    wide = {name: tf.repeat(value, 8, 0) for name, value in batch.items()}
    got, chosen, before = masked(wide)
    after, original = got["input_word_ids"][chosen], before[chosen]
    n = len(after)
    assert n > 20_000
    mask_share = (after == VOCABULARY.mask_id).mean()
    random_ = (after != VOCABULARY.mask_id) & (after != original)
    kept = (after == original).mean()
    # A random piece is one time in twenty the original.
    for share, expected in ((mask_share, 0.8), (random_.mean(), 0.1 * 19 / 20), (kept, 0.1 + 0.1 / 20)):
        assert abs(share - expected) < 5 * np.sqrt(expected * (1 - expected) / n)
    drawn = np.unique(after[random_])
    assert set(drawn) == set(range(len(SPECIAL), len(VOCABULARY)))


def test_rates_at_their_ends(batch):
    got, chosen, before = masked(batch, mask_token_rate=0.0, random_token_rate=0.0)
    np.testing.assert_array_equal(got["input_word_ids"], before)
    assert chosen.any()
    got, chosen, _ = masked(batch, mask_token_rate=1.0, random_token_rate=0.0)
    assert (got["input_word_ids"][chosen] == VOCABULARY.mask_id).all()
    assert not masked(batch, mask_rate=0.0)[1].any()
    _, chosen, _ = masked(batch, mask_rate=1.0, max_predictions=100)
    np.testing.assert_array_equal(chosen, ordinary(batch))


def test_whole_words_are_chosen_whole(batch):
    _, chosen, before = masked(batch, whole_words=True)
    continues = np.array([token.startswith("##") for token in VOCABULARY.tokens])[before]
    inside = continues & ordinary(batch)
    np.testing.assert_array_equal(chosen[:, 1:][inside[:, 1:]], chosen[:, :-1][inside[:, 1:]])
    _, pieces, _ = masked(batch)
    wanted, taken = pieces.sum(1), chosen.sum(1)
    assert (taken <= wanted).all()
    assert taken.sum() > 0.9 * wanted.sum()
    assert (chosen & inside).any()


def test_seeds_make_it_reproducible(batch):
    masker = TokenMasker(VOCABULARY)
    first, again, other = (masker(batch, seed)["input_word_ids"] for seed in ((3, 4), (3, 4), (3, 5)))
    np.testing.assert_array_equal(first, again)
    assert (first != other).numpy().any()
    compiled = tf.function(masker)(batch, tf.constant([3, 4]))["input_word_ids"]
    np.testing.assert_array_equal(first, compiled)


@pytest.mark.parametrize("reshuffle", [False, True])
def test_a_dataset_is_masked_batch_by_batch(batch, reshuffle: bool):
    rows = {name: tf.concat([value[:8]] * 2, 0) for name, value in batch.items()}
    dataset = tf.data.Dataset.from_tensor_slices(rows).batch(8)

    def read(masked_dataset) -> list[np.ndarray]:
        return [item["input_word_ids"].numpy() for item in masked_dataset]

    ours = TokenMasker(VOCABULARY).apply_to(dataset, 7, reshuffle)
    assert ours.element_spec["masked_lm_positions"].shape.as_list() == [None, 20]
    first, second = read(ours), read(ours)
    assert len(first) == 2
    assert (first[0] != first[1]).any()
    assert all((a == b).all() for a, b in zip(first, second, strict=True)) is not reshuffle
    again = read(TokenMasker(VOCABULARY).apply_to(dataset, 7, reshuffle))
    assert all((a == b).all() for a, b in zip(first, again, strict=True))


@pytest.mark.parametrize(
    "options",
    [{"mask_rate": 1.5}, {"mask_token_rate": 0.9, "random_token_rate": 0.2}, {"max_predictions": 0}],
)
def test_impossible_options_are_refused(options: dict):
    with pytest.raises(ValueError):
        TokenMasker(VOCABULARY, **options)


def test_a_vocabulary_without_mask_is_refused():
    with pytest.raises(VocabularyError, match="MASK"):
        TokenMasker(Vocabulary(("[PAD]", "[UNK]", "[CLS]", "[SEP]", "a")))


DOCUMENTS = [[f"{d}.{s}" for s in range(n)] for d, n in enumerate([5, 0, 1, 9, 200])]


def test_next_sentence_pairs():
    pairs = tf.function(next_sentence_pairs)(tf.ragged.constant(DOCUMENTS), (5, 6))
    again = next_sentence_pairs(tf.ragged.constant(DOCUMENTS), (5, 6))
    for ours, theirs in zip(pairs, again, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    first, second = (part.numpy().astype(str) for part in pairs[:2])
    assert first.tolist() == [sentence for document in DOCUMENTS for sentence in document[:-1]]
    documents = np.array([[pair.split(".") for pair in part] for part in (first, second)], int)
    same = documents[0, :, 0] == documents[1, :, 0]
    follows = same & (documents[1, :, 1] == documents[0, :, 1] + 1)
    np.testing.assert_array_equal(pairs.labels, (~follows).astype(np.int32))
    assert (same == follows).all(), "a random sentence comes from another document"
    assert 0.35 < pairs.labels.numpy().mean() < 0.65
    assert (
        not next_sentence_pairs(tf.ragged.constant(DOCUMENTS), (5, 6), random_rate=0.0).labels.numpy().any()
    )


def test_random_sentences_come_from_all_other_documents():
    documents = tf.ragged.constant([["a0", "a1"], ["b0"], ["c0", "c1", "c2"]])
    drawn = {"a": set(), "c": set()}
    for seed in range(100):
        pairs = next_sentence_pairs(documents, (seed, 0), random_rate=1.0)
        for first, second in zip(pairs.first.numpy(), pairs.second.numpy(), strict=True):
            drawn[first.decode()[0]].add(second.decode())
    assert drawn == {"a": {"b0", "c0", "c1", "c2"}, "c": {"a0", "a1", "b0"}}


def test_one_document_has_no_other():
    with pytest.raises(tf.errors.InvalidArgumentError, match="at least two"):
        next_sentence_pairs(tf.ragged.constant([["a", "b"], []], dtype=tf.string), (0, 0), random_rate=1.0)
    with pytest.raises(ValueError, match="ragged string"):
        next_sentence_pairs(tf.constant([["a"]]), (0, 0))
    empty = next_sentence_pairs(tf.ragged.constant([["a"], []], dtype=tf.string), (0, 0))
    assert empty.first.shape == [0]
