"""Segment pairs: what holds for every document, length and seed, and the rates they are drawn at."""

import numpy as np
import pytest

from tfbert_npu.train.next_sentence import segment_pairs


def corpus(seed, documents=30, sentences=12, tokens=9):
    """Documents whose every token is unlike any other, so that a segment says where it comes from."""
    rng = np.random.default_rng(seed)
    token = iter(range(10**6))
    return [
        [
            [next(token) for _ in range(rng.integers(1, tokens + 1))]
            for _ in range(rng.integers(1, sentences + 1))
        ]
        for _ in range(documents)
    ]


def places(documents):
    """By token: its document, its place there, and its sentence."""
    return {
        token: (number, place, sentence)
        for number, document in enumerate(documents)
        for place, (token, sentence) in enumerate(
            (token, sentence) for sentence, ids in enumerate(document) for token in ids
        )
    }


def is_run(segment, where):
    """Whether tokens follow each other in one document."""
    found = [where[token][:2] for token in segment]
    return found == [(found[0][0], found[0][1] + i) for i in range(len(found))]


@pytest.mark.parametrize("room", [2, 3, 17, 64, 500])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_what_holds_for_every_pair(room, seed):
    documents = corpus(seed)
    where = places(documents)
    pairs = list(segment_pairs(documents, room, np.random.default_rng(seed)))
    began = []
    for first, second, is_random in pairs:
        assert min(len(first), len(second)) > 0
        assert len(first) + len(second) <= room
        assert is_run(first, where)
        assert is_run(second, where)
        (one, end, sentence), (other, begin, next_sentence) = where[first[-1]], where[second[0]]
        if is_random:
            assert one != other
        else:
            assert one == other
            # Next to each other, unless a truncation took what was between.
            assert begin > end
            if len(first) + len(second) < room:
                assert begin == end + 1
                assert next_sentence == sentence + 1
        began.append(where[first[0]][:2])
    assert began == sorted(began), "the documents are gone through in order"
    assert {number for number, _ in began} == set(range(len(documents))), "no document is left out"


def test_nothing_but_truncation_loses_text():
    documents = corpus(3, sentences=20)
    pairs = list(segment_pairs(documents, 10_000, np.random.default_rng(0), short_seq_prob=0.0))
    first_half = [
        token for pair in pairs for token in (pair.first if pair.is_random else pair.first + pair.second)
    ]
    assert first_half == [token for document in documents for ids in document for token in ids]


def test_rows_are_filled():
    documents = corpus(4, documents=20, sentences=400)
    room = 40

    def lengths(short_seq_prob):
        pairs = segment_pairs(documents, room, np.random.default_rng(0), short_seq_prob=short_seq_prob)
        return np.array([len(first) + len(second) for first, second, _ in pairs])

    # Ends of documents are short, so not every row can be full.
    assert (lengths(0.0) == room).mean() > 0.85
    assert (lengths(1.0) == room).mean() < 0.2
    assert abs(lengths(1.0).mean() - (2 + room) / 2) < 4
    assert 0.70 < (lengths(0.1) == room).mean() < (lengths(0.0) == room).mean()


def test_share_of_random_segments():
    documents = corpus(5, documents=100, sentences=60)

    def labels(rate):
        return [p.is_random for p in segment_pairs(documents, 60, np.random.default_rng(1), random_rate=rate)]

    half = labels(0.5)
    # A standard error below 0.02, and the sentences that are alone at a document's end.
    assert 0.48 < np.mean(half) < 0.62
    assert np.mean(labels(0.0)) < 0.1
    assert all(labels(1.0))
    alone = [[[1, 2]], [[3]], [[4, 5, 6]]]
    assert all(p.is_random for p in segment_pairs(alone, 8, np.random.default_rng(0), random_rate=0.0))


def test_truncation_takes_from_both_ends_of_the_longer_segment():
    documents = [[list(range(100))], [list(range(100, 103))]]
    (long, other), (short, longer) = (
        pair[:2] for pair in segment_pairs(documents, 20, np.random.default_rng(0), short_seq_prob=0.0)
    )
    assert other == short == [100, 101, 102], "the shorter segment is left whole"
    for segment in (long, longer):
        assert len(segment) == 17
        assert 20 < segment[0] < 60, "chance cuts a half from the front"
    cut_from_front = [
        pair.first[0]
        for seed in range(50)
        for pair in list(segment_pairs(documents, 20, np.random.default_rng(seed), short_seq_prob=0.0))[:1]
    ]
    assert abs(np.mean(cut_from_front) - 83 / 2) < 3


def test_random_segments_come_from_every_other_document_and_place():
    documents = corpus(6, documents=5, sentences=6)
    where = places(documents)
    drawn = {number: set() for number in range(5)}
    for seed in range(300):
        for pair in segment_pairs(documents, 12, np.random.default_rng(seed), random_rate=1.0):
            drawn[where[pair.first[0]][0]].add(where[pair.second[0]][::2])
    everywhere = {(number, sentence) for number, _, sentence in where.values()}
    for number, found in drawn.items():
        assert found >= {place for place in everywhere if place[0] != number}
        assert number not in {other for other, _ in found}


def test_the_same_state_gives_the_same_pairs():
    documents = corpus(7)
    one, same, other = (list(segment_pairs(documents, 30, np.random.default_rng(seed))) for seed in (0, 0, 1))
    assert one == same != other


def test_documents_are_a_stream_and_random_ones_come_from_the_buffer():
    documents = corpus(8, documents=21)
    where = places(documents)
    taken = []

    def stream():
        for number, document in enumerate(documents):
            taken.append(number)
            yield document

    pairs = segment_pairs(stream(), 30, np.random.default_rng(0), random_rate=1.0, buffer_size=4)
    next(pairs)
    assert len(taken) == 4
    for pair in pairs:
        number, other = where[pair.first[0]][0], where[pair.second[0]][0]
        if number < 20:
            assert number // 4 == other // 4
        else:  # the last one is alone in its buffer
            assert 16 <= other < 20
    assert taken == list(range(21))


def test_empty_documents_are_passed_over_and_a_single_one_is_refused():
    assert list(segment_pairs([], 10, np.random.default_rng(0))) == []
    with pytest.raises(ValueError, match="two documents or more"):
        list(segment_pairs([[], [[1], [2]], []], 10, np.random.default_rng(0)))
    for options in ({"room": 1}, {"room": 10, "buffer_size": 1}):
        with pytest.raises(ValueError, match="at least 2"):
            list(segment_pairs([[[1]], [[2]]], random=np.random.default_rng(0), **options))
