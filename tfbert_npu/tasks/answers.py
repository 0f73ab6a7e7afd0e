"""`answer`: the stretch of a text that answers a question."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tfbert_npu.preprocess import BertTokenizer
from tfbert_npu.tasks.loading import asks
from tfbert_npu.tasks.running import as_tokenizer, length_for, listed, run, scores_of, softmax
from tfbert_npu.tasks.words import Word, windows, words_of

# Longer questions are cut, as in google-research/bert's run_squad.py (max_query_length).
MAX_QUESTION_PIECES = 64


@dataclass(frozen=True)
class Answer:
    """An answer: `context[start:end]`, and its probability among the candidates; names as in transformers.

    "No answer" has an empty answer, start 0 and end 0.
    """

    answer: str
    start: int
    end: int
    score: float

    @property
    def text(self) -> str:
        """`answer`, as 0.1 called it."""
        return self.answer


@dataclass(frozen=True)
class Window:
    """A question with a part of its context.

    `ids` and `types` are the model's input; `words` the context's words in it, and `places` the position of
    each one's first piece and of its last.
    """

    ids: list[int]
    types: list[int]
    words: list[Word]
    places: list[tuple[int, int]]


def question_windows(
    tokenizer: BertTokenizer, question: str, context: str, *, seq_length: int = 384, stride: int = 128
) -> list[Window]:
    """`[CLS] question [SEP] part of the context [SEP]`, for parts that overlap by about `stride` pieces.

    Raises:
        ValueError: `seq_length` has no room for a context beside the question.
    """
    vocabulary = tokenizer.vocabulary
    query = tokenizer.encode(question)[:MAX_QUESTION_PIECES]
    head = [vocabulary.cls_id, *query, vocabulary.sep_id]
    room = seq_length - len(head) - 1
    if room < 1:
        raise ValueError(
            f"seq_length={seq_length} has no room for a context beside a question of {len(query)} pieces"
        )
    words = words_of(tokenizer, context)
    result = []
    for start, end in windows([min(len(word.ids), room) for word in words], room, min(stride, room // 2)):
        ids, places = list(head), []
        for word in words[start:end]:
            places.append((len(ids), len(ids) + min(len(word.ids), room) - 1))
            ids += word.ids[:room]
        ids.append(vocabulary.sep_id)
        result.append(Window(ids, [0] * len(head) + [1] * (len(ids) - len(head)), words[start:end], places))
    return result


@asks("qa")
def answer(
    model: Any,
    preprocessor: Any,
    questions: str | Sequence[str],
    contexts: str | Sequence[str],
    *,
    top_k: int = 1,
    no_answer: bool = False,
    no_answer_threshold: float = 0.0,
    max_answer_pieces: int = 30,
    seq_length: int | None = None,
    stride: int | None = None,
    batch_size: int = 16,
) -> list[list[Answer]]:
    """The best answers to questions, each in its own context.

    A context that does not fit is read in windows that overlap (Devlin et al. 2018, section 4.2); a span's
    score is its start logit plus its end logit, and probabilities are over the candidates of all windows.

    Args:
        model: What `load` gave, after which come the questions; or a `BertForQuestionAnswering`, or a
            callable with such outputs.
        preprocessor: Its `BertPreprocessor` or `BertTokenizer`; of a loaded model left out.
        questions: B questions; one alone is a list of one.
        contexts: B texts to look in.
        top_k: How many answers per question, the best first.
        no_answer: Whether "no answer" is a candidate (SQuAD 2.0, section 4.3 of the paper).
        no_answer_threshold: How much better than the best span the empty answer must score to be first.
        max_answer_pieces: Longest answer in word pieces.
        seq_length: Length of a window in tokens; by default the artifact's longest shape, or 384.
        stride: Overlap of windows in tokens; by default 128, or a third of a shorter window.
        batch_size: Windows per call of the model.

    Returns:
        For each question up to `top_k` answers.
    """
    questions, contexts = listed(questions), listed(contexts)
    seq_length = length_for(model, seq_length, 384)
    stride = min(128, seq_length // 3) if stride is None else stride
    if len(questions) != len(contexts):
        raise ValueError(f"{len(questions)} questions but {len(contexts)} contexts; give one for each")
    tokenizer = as_tokenizer(preprocessor)
    parts = [
        question_windows(tokenizer, question, context, seq_length=seq_length, stride=stride)
        for question, context in zip(questions, contexts, strict=True)
    ]
    flat = [window for windows_of_one in parts for window in windows_of_one]
    outputs = run(
        model,
        [window.ids for window in flat],
        [window.types for window in flat],
        batch_size=batch_size,
        pad_id=tokenizer.vocabulary.pad_id,
    )
    results = []
    for context, own in zip(contexts, parts, strict=True):
        spans: dict[tuple[int, int], float] = {}
        empty = np.inf
        for window in own:
            output = next(outputs)
            start_logits, end_logits = (scores_of(output, f"{end}_logits") for end in ("start", "end"))
            # The least of the windows: each of them must agree that there is none.
            empty = min(empty, float(start_logits[0]) + float(end_logits[0]))
            for span, score in _spans(window, start_logits, end_logits, max(20, top_k), max_answer_pieces):
                spans[span] = max(score, spans.get(span, -np.inf))
        results.append(_ranked(context, spans, empty - no_answer_threshold if no_answer else None, top_k))
    return results


def _spans(
    window: Window, start_logits: np.ndarray, end_logits: np.ndarray, most: int, longest: int
) -> list[tuple[tuple[int, int], float]]:
    if not window.words:
        return []
    firsts, lasts = np.array(window.places).T
    scores = start_logits[firsts][:, None] + end_logits[lasts][None, :]
    lengths = lasts[None, :] - firsts[:, None] + 1
    # A single word stays a candidate however many pieces it has.
    backwards = np.tril(np.ones_like(scores, bool), -1)
    possible = ~backwards & ((lengths <= longest) | np.eye(len(firsts), dtype=bool))
    scores = np.where(possible, scores, -np.inf)
    best = np.argsort(-scores, axis=None, kind="stable")[:most]
    pairs = [divmod(int(index), len(firsts)) for index in best]
    return [
        ((window.words[first].start, window.words[last].end), float(scores[first, last]))
        for first, last in pairs
        if possible[first, last]
    ]


def _ranked(
    context: str, spans: dict[tuple[int, int], float], empty: float | None, top_k: int
) -> list[Answer]:
    candidates = sorted(spans.items(), key=lambda item: -item[1])[: max(20, top_k)]
    if empty is not None or not candidates:
        candidates.append(((0, 0), empty if empty is not None else 0.0))
        candidates.sort(key=lambda item: -item[1])
    probabilities = softmax(np.array([score for _, score in candidates]))
    return [
        Answer(context[start:end], start, end, float(probability))
        for ((start, end), _), probability in zip(candidates, probabilities, strict=True)
    ][:top_k]
