"""The ASGI application: routes, limits, errors, metrics."""

from __future__ import annotations

import asyncio
import hmac
import json
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import numpy as np
from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    generate_latest,
)
from pydantic import BaseModel, ValidationError
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from tfbert_npu.errors import TfbertNpuError
from tfbert_npu.serve.batching import Batcher, How, QueueFullError, StoppingError, TextOrIds
from tfbert_npu.serve.replies import Limits, RefusedError, error_reply, listed, openai_vector
from tfbert_npu.serve.requests import OllamaRequest, OpenAIRequest, TeiRequest
from tfbert_npu.serve.scoring import Scorer, model_type, predict, rerank
from tfbert_npu.tasks.loading import TaskModel
from tfbert_npu.tasks.running import length_for
from tfbert_npu.tasks.sentence_encoder import SentenceEncoder

_LOG = logging.getLogger("tfbert_npu.serve")
_RETRY_AFTER = {"Retry-After": "1"}
_Body = TypeVar("_Body", bound=BaseModel)
_Kind = TypeVar("_Kind", SentenceEncoder, TaskModel)


@dataclass
class Served:
    """A model and its queue; `failure` says why it could not be loaded."""

    name: str
    model: SentenceEncoder | TaskModel | None
    batcher: Batcher | None
    failure: str | None = None


class Service:
    """The models, and what the routes share.

    Args:
        models: Encoders and classifiers by name, or the sentence that says why one failed to load. The first
            of its kind is the default.
        workers: Threads for each model; as many as it has cores.
        batch_size: Texts of a call at most.
        limits: What is refused.
        api_key: Asked for as `Authorization: Bearer`, if any.
    """

    def __init__(
        self,
        models: Mapping[str, SentenceEncoder | TaskModel | str],
        *,
        workers: int = 1,
        batch_size: int = 32,
        limits: Limits | None = None,
        api_key: str | None = None,
    ) -> None:
        self.limits, self._key = limits or Limits(), api_key
        self.registry = CollectorRegistry()
        labels = ["route", "status"]
        self._requests = Counter("tfbert_requests", "Requests.", labels, registry=self.registry)
        self._seconds = Histogram("tfbert_request_seconds", "Time of a request.", registry=self.registry)
        self._tokens = Counter("tfbert_tokens", "Tokens embedded.", registry=self.registry)
        batches = Histogram(
            "tfbert_batch_texts", "Texts of a call.", registry=self.registry, buckets=(1, 2, 4, 8, 16, 32, 64)
        )
        self.models: dict[str, Served] = {}
        for name, model in models.items():
            if isinstance(model, str):
                self.models[name] = Served(name, None, None, model)
                continue
            batcher = Batcher(
                Scorer(model) if isinstance(model, TaskModel) else model,
                workers=workers,
                batch_size=batch_size,
                queue_size=self.limits.queue,
                observe=batches.observe,
            )
            self.models[name] = Served(name, model, batcher)
        depth = Gauge("tfbert_waiting_texts", "Texts that wait.", registry=self.registry)
        depth.set_function(lambda: sum(one.batcher.depth for one in self.models.values() if one.batcher))

    def app(self, ready: Callable[[], None] = lambda: None) -> Starlette:
        """The application; it calls `ready` when it takes requests, and signals are its own."""
        posts: dict[str, Callable[[Request], Awaitable[Response]]] = {
            "/v1/embeddings": self._openai,
            "/embed": self._tei,
            "/tokenize": self._tokenize,
            "/api/embed": self._ollama,
            "/rerank": partial(rerank, self),
            "/predict": partial(predict, self),
        }
        gets: dict[str, Callable[[Request], Awaitable[Response]]] = {
            "/v1/models": self._models,
            "/info": self._info,
            "/health": self._health,
            "/metrics": self._metrics,
        }
        routes = [
            Route(path, self._guarded(path, handler), methods=["POST"]) for path, handler in posts.items()
        ]
        routes += [
            Route(path, self._guarded(path, handler), methods=["GET"]) for path, handler in gets.items()
        ]
        return Starlette(routes=routes, lifespan=partial(self._lifespan, ready))

    @asynccontextmanager
    async def _lifespan(self, ready: Callable[[], None], app: Starlette) -> AsyncIterator[None]:
        ready()
        yield
        for one in self.models.values():
            if one.batcher is not None and one.model is not None:
                one.batcher.close()
                one.model.close()

    def _guarded(
        self, path: str, handler: Callable[[Request], Awaitable[Response]]
    ) -> Callable[[Request], Awaitable[Response]]:
        async def guarded(request: Request) -> Response:
            began = time.monotonic()
            response = await self._answer(path, handler, request)
            took = time.monotonic() - began
            self._requests.labels(path, str(response.status_code)).inc()
            self._seconds.observe(took)
            line = {"route": path, "status": response.status_code, "ms": round(took * 1e3, 1)}
            _LOG.info(json.dumps(line))
            return response

        return guarded

    async def _answer(
        self, path: str, handler: Callable[[Request], Awaitable[Response]], request: Request
    ) -> Response:
        try:
            if path not in ("/health", "/metrics"):
                self._check_key(request)
            return await handler(request)
        except RefusedError as refused:
            return error_reply(path, refused.status, refused.message, refused.headers)
        except QueueFullError as error:
            return error_reply(path, 429, str(error), _RETRY_AFTER)
        except StoppingError as error:
            return error_reply(path, 503, str(error), _RETRY_AFTER)
        except TimeoutError:
            seconds = f"{self.limits.timeout:g}"
            return error_reply(path, 503, f"no answer within {seconds} s; ask again later", _RETRY_AFTER)
        except ValueError as error:
            return error_reply(path, 422, str(error))
        except TfbertNpuError as error:  # the backend failed
            _LOG.error(json.dumps({"route": path, "error": str(error)}))
            return error_reply(path, 503, str(error), _RETRY_AFTER)

    def _check_key(self, request: Request) -> None:
        if self._key is None:
            return
        given = request.headers.get("authorization", "").removeprefix("Bearer ")
        if not hmac.compare_digest(given.encode(), self._key.encode()):
            raise RefusedError(401, "the API key is missing or wrong; send it as Authorization: Bearer KEY")

    async def body(self, request: Request, kind: type[_Body]) -> _Body:
        """What a client sent, or a refusal that says what is wrong with it."""
        body = bytearray()
        async for chunk in request.stream():
            body += chunk
            if len(body) > self.limits.body:
                raise RefusedError(
                    413, f"the request is larger than {self.limits.body} bytes; send fewer texts"
                )
        try:
            return kind.model_validate_json(bytes(body))
        except ValidationError as error:
            first = error.errors()[0]
            place = ".".join(str(part) for part in first["loc"] if isinstance(part, str)) or "the request"
            raise RefusedError(422, f"{place}: {first['msg']}") from None

    def served(self, kind: type[_Kind], name: str | None = None) -> tuple[_Kind, Batcher]:
        """The model of that name and kind, by default the first of its kind, and its queue.

        Raises:
            RefusedError: There is none, or it did not load.
        """
        if name is not None and name not in self.models:
            raise RefusedError(404, f"there is no model {name!r}; known are {', '.join(self.models)}")
        asked = list(self.models.values()) if name is None else [self.models[name]]
        for one in asked:
            if isinstance(one.model, kind) and one.batcher is not None:
                return one.model, one.batcher
        for one in asked:
            if one.failure is not None:
                raise RefusedError(503, f"the model {one.name} did not load: {one.failure}")
        gives = "scores; ask /rerank or /predict" if kind is SentenceEncoder else "vectors; ask /embed"
        raise RefusedError(422, f"the model {asked[0].name} gives {gives}")

    def check_number(self, texts: Sequence[object]) -> None:
        """Refuse a request of too many texts."""
        if len(texts) > self.limits.texts:
            raise RefusedError(413, f"{len(texts)} texts are more than the {self.limits.texts} of a request")

    async def _embed(
        self, name: str | None, texts: Sequence[TextOrIds], how: How, truncate: bool | None = None
    ) -> tuple[np.ndarray, int]:
        encoder, batcher = self.served(SentenceEncoder, name)
        self.check_number(texts)
        if how.prompt_name is not None and how.prompt_name not in encoder.options.prompts:
            known = ", ".join(encoder.options.prompts) or "none"
            raise RefusedError(422, f"the model has no prompt {how.prompt_name!r}; known are {known}")
        if how.dimensions is not None and how.dimensions > encoder.dimensions:
            raise RefusedError(422, f"dimensions must be at most {encoder.dimensions}, got {how.dimensions}")
        # Tokenizing thousands of texts would hold up every other client.
        tokens = await asyncio.to_thread(self._count, encoder, texts, truncate)
        vectors = await batcher.embed(texts, how, self.limits.timeout)
        self._tokens.inc(tokens)
        return vectors, tokens

    @staticmethod
    def _count(encoder: SentenceEncoder, texts: Sequence[TextOrIds], truncate: bool | None) -> int:
        if truncate is False:
            most = encoder.max_seq_length
            longest = max(len(encoder.tokenizer.encode(one)) + 2 for one in texts if isinstance(one, str))
            if longest > most:
                raise RefusedError(
                    422, f"a text has {longest} tokens, more than {most}; set truncate to true"
                )
        return encoder.count_tokens(texts)

    async def _openai(self, request: Request) -> Response:
        body = await self.body(request, OpenAIRequest)
        given = body.input
        texts: Sequence[TextOrIds]
        if isinstance(given, str):
            texts = [given]
        else:
            texts = [given] if isinstance(given[0], int) else given
        vectors, tokens = await self._embed(body.model, texts, How(dimensions=body.dimensions))
        data = [
            {"object": "embedding", "index": index, "embedding": openai_vector(vector, body.encoding_format)}
            for index, vector in enumerate(vectors)
        ]
        usage = {"prompt_tokens": tokens, "total_tokens": tokens}
        name = body.model or next(iter(self.models))
        return JSONResponse({"object": "list", "data": data, "model": name, "usage": usage})

    async def _tei(self, request: Request) -> Response:
        body = await self.body(request, TeiRequest)
        how = How(body.prompt_name, body.normalize, body.dimensions)
        vectors, _ = await self._embed(None, listed(body.inputs), how, body.truncate)
        return JSONResponse(vectors.tolist())

    async def _ollama(self, request: Request) -> Response:
        began = time.monotonic_ns()
        body = await self.body(request, OllamaRequest)
        how = How(dimensions=body.dimensions)
        vectors, tokens = await self._embed(body.model, listed(body.input), how, body.truncate)
        return JSONResponse(
            {
                "model": body.model,
                "embeddings": vectors.tolist(),
                "total_duration": time.monotonic_ns() - began,
                "load_duration": 0,
                "prompt_eval_count": tokens,
            }
        )

    async def _tokenize(self, request: Request) -> Response:
        body = await self.body(request, TeiRequest)
        encoder, _ = self.served(SentenceEncoder)
        tokenizer = encoder.tokenizer
        answers = []
        for text in listed(body.inputs):
            ids, offsets = tokenizer.encode_with_offsets(text)
            pieces: list[dict[str, Any]] = [
                {"id": one, "text": text[start:end], "special": False, "start": start, "stop": end}
                for one, (start, end) in zip(ids, offsets, strict=True)
            ]
            if body.add_special_tokens:
                special = tokenizer.vocabulary
                first, last = (
                    {"id": one, "text": special.tokens[one], "special": True, "start": None, "stop": None}
                    for one in (special.cls_id, special.sep_id)
                )
                pieces = [first, *pieces, last]
            answers.append(pieces)
        return JSONResponse(answers)

    async def _models(self, request: Request) -> Response:
        data = [
            {"id": name, "object": "model", "created": 0, "owned_by": "tfbert-npu"}
            for name, served in self.models.items()
            if served.failure is None
        ]
        return JSONResponse({"object": "list", "data": data})

    async def _info(self, request: Request) -> Response:
        name, one = next(iter(self.models.items()))
        if isinstance(one.model, TaskModel):
            longest = length_for(one.model, None, one.model.config.max_position_embeddings)
            facts = {"model_type": model_type(one.model), "max_input_length": longest}
        else:
            encoder, _ = self.served(SentenceEncoder)
            facts = {
                "model_type": {"embedding": {"pooling": "+".join(encoder.options.pooling)}},
                "max_input_length": encoder.max_seq_length,
                "dimensions": encoder.dimensions,
            }
        return JSONResponse({"model_id": name, "max_client_batch_size": self.limits.texts, **facts})

    async def _health(self, request: Request) -> Response:
        failed = {name: served.failure for name, served in self.models.items() if served.failure}
        status = 503 if len(failed) == len(self.models) else 200
        return JSONResponse({"status": "ok" if status == 200 else "failed", "failed": failed}, status)

    async def _metrics(self, request: Request) -> Response:
        return Response(generate_latest(self.registry), media_type=CONTENT_TYPE_LATEST)
