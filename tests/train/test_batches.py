"""Batches: everything once per epoch, the same for the same seed, resumable anywhere."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tfbert_npu.train.batches import Batches, BatchOptions, balanced_weights
from tfbert_npu.train.features import IGNORED, Feature


def feature(number, length):
    return Feature([number] * length, [0] * length, number)


def make(lengths, **options):
    rows = [feature(index + 1, length) for index, length in enumerate(lengths)]
    return Batches(lambda: iter(rows), BatchOptions(seq_length=16, **options))


def same(left, right):
    return all(
        np.array_equal(a, b)
        for x, y in zip(left, right, strict=True)
        for a, b in zip([*x[0].values(), x[1]], [*y[0].values(), y[1]], strict=True)
    )


any_batches = st.fixed_dictionaries(
    {
        "lengths": st.lists(st.integers(1, 16), min_size=1, max_size=60),
        "batch_size": st.integers(1, 7),
        "shuffle": st.integers(0, 40),
        "group": st.integers(1, 5),
        "seed": st.integers(0, 3),
        "pad_to": st.sampled_from([None, 1, 8]),
    }
)


@given(any_batches, st.integers(0, 5))
def test_each_row_once_per_epoch(arguments, epoch):
    batches = make(**arguments)
    seen = Counter()
    count = 0
    for inputs, labels, weights in batches.epoch(epoch):
        count += 1
        assert weights is None
        seen.update(labels.tolist())
        for row, label in enumerate(labels):
            length = arguments["lengths"][label - 1]
            assert inputs["input_mask"][row].tolist() == [1] * length + [0] * (labels_width(inputs) - length)
            assert inputs["input_word_ids"][row].sum() == label * length
    assert seen == Counter(range(1, len(arguments["lengths"]) + 1))
    assert count == len(batches)


def labels_width(inputs):
    return inputs["input_word_ids"].shape[1]


@given(any_batches, st.integers(0, 3), st.integers(0, 20))
def test_an_epoch_can_be_entered_at_any_batch(arguments, epoch, skip):
    batches = make(**arguments)
    assert same(list(batches.epoch(epoch))[skip:], list(batches.epoch(epoch, skip)))
    assert same(batches.epoch(epoch), make(**arguments).epoch(epoch))


def test_epochs_and_seeds_differ():
    orders = {
        tuple(label for _, labels, _ in make([3] * 50, seed=seed).epoch(epoch) for label in labels)
        for seed in (0, 1)
        for epoch in (0, 1)
    }
    assert len(orders) == 4


def test_grouping_saves_padding():
    lengths = np.random.default_rng(0).integers(1, 17, 400).tolist()

    def padding(group):
        batches = make(lengths, batch_size=8, group=group, pad_to=1)
        return sum(x["input_mask"].size - x["input_mask"].sum() for x, _, _ in batches.epoch(0))

    assert padding(16) < padding(1) / 3


def test_full_padding_and_dropped_remainder():
    batches = make([3] * 10, batch_size=4, pad_to=None, drop_remainder=True)
    assert [x["input_word_ids"].shape for x, _, _ in batches.epoch(0)] == [(4, 16)] * 2
    assert len(batches) == 2


def test_token_labels_are_padded_with_the_ignored_label():
    rows = [Feature([1, 2, 3], [0] * 3, [IGNORED, 1, 0]), Feature([1], [0], [2])]
    batches = Batches(lambda: rows, BatchOptions(pad_to=4, shuffle=0, group=1), class_weights=[1.0, 2.0, 4.0])
    ((_, labels, weights),) = batches.epoch(0)
    assert labels.tolist() == [[IGNORED, 1, 0, IGNORED], [2, IGNORED, IGNORED, IGNORED]]
    assert weights.tolist() == [[0, 2, 1, 0], [4, 0, 0, 0]]


def test_choices_are_rank_three():
    rows = [Feature([[1, 2], [3, 4, 5]], [[0, 0], [0, 0, 1]], 1)]
    ((inputs, labels, _),) = Batches(lambda: rows, BatchOptions(pad_to=4)).epoch(0)
    assert inputs["input_word_ids"].tolist() == [[[1, 2, 0, 0], [3, 4, 5, 0]]]
    assert inputs["input_type_ids"].tolist() == [[[0, 0, 0, 0], [0, 0, 1, 0]]]
    assert labels.tolist() == [1]


def test_bad_data():
    with pytest.raises(ValueError, match="data set is empty"):
        make([])
    with pytest.raises(ValueError, match="every label"):
        Batches(lambda: [Feature([1, 2], [0, 0], [IGNORED, IGNORED])], BatchOptions())
    with pytest.raises(ValueError, match="less than one batch of 32"):
        make([3, 3], drop_remainder=True)
    with pytest.raises(ValueError, match="batch_size must be at least 1"):
        BatchOptions(batch_size=0)


def test_without_cache_features_are_made_anew():
    calls = []

    def features():
        calls.append(1)
        return iter([feature(1, 2)])

    batches = Batches(features, BatchOptions(), cache=False)
    list(batches.epoch(0)), list(batches.epoch(1))
    assert len(calls) == 3


def test_balanced_weights_are_scikit_learns():
    weights = pytest.importorskip("sklearn.utils.class_weight")
    labels = [0] * 5 + [1] * 2 + [2] * 9
    expected = weights.compute_class_weight("balanced", classes=np.array([0, 1, 2]), y=labels)
    np.testing.assert_allclose(balanced_weights([5, 2, 9]), expected)
    assert balanced_weights([4, 0]) == [1.0, 0.0]
