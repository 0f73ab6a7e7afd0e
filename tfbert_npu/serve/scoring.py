"""Classifiers and cross-encoders: `/predict` and `/rerank` of Text Embeddings Inference."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from tfbert_npu.serve.batching import How, Item
from tfbert_npu.serve.replies import RefusedError
from tfbert_npu.serve.requests import PredictRequest, RerankRequest
from tfbert_npu.tasks.classes import label_scores
from tfbert_npu.tasks.loading import TaskModel
from tfbert_npu.tasks.reranking import activated, check_reranker, pair_logits
from tfbert_npu.tasks.running import length_for

if TYPE_CHECKING:
    from tfbert_npu.serve.app import Service

Pair = tuple[str, str | None]
_SINGLE, _PAIR = How("single"), How("pair")  # only those of one kind go into a batch


class Scorer:
    """A loaded classifier as what a queue calls: a row of logits for each text or pair."""

    def __init__(self, model: TaskModel) -> None:
        self._model = model

    def encode(
        self,
        texts: Sequence[Any],
        prompt_name: str | None = None,
        normalize: bool | None = None,
        dimensions: int | None = None,
        batch_size: int = 32,
    ) -> np.ndarray:
        """float64 [N, labels]."""
        firsts = [first for first, _ in texts]
        seconds = [second for _, second in texts] if prompt_name == _PAIR.prompt_name else None
        return pair_logits(self._model, firsts, seconds, batch_size=batch_size)


async def rerank(service: Service, request: Request) -> Response:
    """`POST /rerank`: the texts by their score with the query, the best first."""
    body = await service.body(request, RerankRequest)
    model, _ = service.served(TaskModel)
    check_reranker(model)
    logits = (await _logits(service, [(body.query, text) for text in body.texts], body.truncate))[:, 0]
    scores = logits if body.raw_scores else activated(model)(logits)
    order = np.argsort(-scores, kind="stable").tolist()
    return JSONResponse(
        [
            {"index": index, "score": float(scores[index])}
            | ({"text": body.texts[index]} if body.return_text else {})
            for index in order
        ]
    )


async def predict(service: Service, request: Request) -> Response:
    """`POST /predict`: every label with its score, the best first, of a text or pair or of several."""
    body = await service.body(request, PredictRequest)
    model, _ = service.served(TaskModel)
    several = isinstance(body.inputs, list)
    asked = [_pair(one) for one in body.inputs] if isinstance(body.inputs, list) else [_pair(body.inputs)]
    logits = await _logits(service, asked, body.truncate)
    kind = "regression" if body.raw_scores else model.problem_type
    answers = []
    for row in logits:
        if kind == "regression" and not body.raw_scores and len(row) == 1:
            row = activated(model)(row)
        found = sorted(label_scores(row, model.labels, kind), key=lambda one: -one.score)
        answers.append([{"score": one.score, "label": one.label} for one in found])
    return JSONResponse(answers if several else answers[0])


def model_type(model: TaskModel) -> dict[str, Any]:
    """What `/info` says a model is."""
    labels = {
        "id2label": {str(index): label for index, label in enumerate(model.labels)},
        "label2id": {label: index for index, label in enumerate(model.labels)},
    }
    return {"reranker" if model.config.num_labels == 1 else "classifier": labels}


async def _logits(service: Service, asked: list[Pair], truncate: bool | None) -> np.ndarray:
    service.check_number(asked)
    model, batcher = service.served(TaskModel)
    if truncate is False:
        await asyncio.to_thread(_check_lengths, model, asked)
    rows: list[np.ndarray | None] = [None] * len(asked)
    for how in (_SINGLE, _PAIR):
        places = [place for place, (_, second) in enumerate(asked) if (second is not None) == (how is _PAIR)]
        items: list[Item] = [asked[place] for place in places]
        if items:
            for place, row in zip(
                places, await batcher.embed(items, how, service.limits.timeout), strict=True
            ):
                rows[place] = row
    return np.array(rows)


def _check_lengths(model: TaskModel, asked: list[Pair]) -> None:
    most = length_for(model, None, model.config.max_position_embeddings)
    for first, second in asked:
        parts = [first] if second is None else [first, second]
        tokens = sum(len(model.tokenizer.encode(part)) + 1 for part in parts) + 1
        if tokens > most:
            raise RefusedError(422, f"a text has {tokens} tokens, more than {most}; set truncate to true")


def _pair(given: str | tuple[str] | tuple[str, str]) -> Pair:
    if isinstance(given, str):
        return given, None
    return given[0], given[1] if len(given) == 2 else None
