"""The web application: which request leads where."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from lmflow_core.api import ChatModel, SampledToken, ToolCall
from lmflow_serve.access import Access
from lmflow_serve.answering import Answering
from lmflow_serve.clients import EventStream, read_body, too_long, until_left
from lmflow_serve.errors import ApiError, failed, overloaded
from lmflow_serve.images import Images, are_fetched
from lmflow_serve.metrics import Measured, Metrics
from lmflow_serve.options import ServeOptions
from lmflow_serve.replies import ChatReply, CompletionReply, Reply, reply_head, usage
from lmflow_serve.requests import Asked, read_chat, read_completion
from lmflow_serve.writing import Job, QueueFullError, Writers, WritingFailedError, jobs_of, pieces_of

# Servers of images are waited for side by side, and by no answer.
_FETCHED_AT_A_TIME = 4

Endpoint = Callable[[Request], Awaitable[Response]]


class Service:
    """A model behind the endpoints of OpenAI's interface. ``key`` is None to let everybody in."""

    def __init__(self, model: ChatModel, name: str, options: ServeOptions, key: str | None) -> None:
        self._model = model
        self.name = name
        self._options = options
        self._access = Access(key, options.host)
        self._metrics = Metrics()
        self._writers = Writers(
            model,
            slots=options.slots,
            max_queue=options.max_queue,
            cache_tokens=options.cache_tokens,
            on_end=self._metrics.count,
        )
        self._metrics.watch(self._writers)
        self._reader = ThreadPoolExecutor(1, "prompts")
        self._fetchers = ThreadPoolExecutor(_FETCHED_AT_A_TIME, "fetching")
        self._being_read = 0
        self._images = Images(model.model.media, options.max_images, options.max_image_bytes)
        self._answering = Answering(model, options.max_request_tokens, self._writers.check, self._images)
        self._created = int(time.time())

    def app(self) -> Starlette:
        """Return the application."""
        routes = [
            Route("/v1/chat/completions", self._guarded(self._chat), methods=["POST"]),
            Route("/v1/completions", self._guarded(self._complete), methods=["POST"]),
            Route("/v1/models", self._guarded(self._models)),
            Route("/v1/models/{name:path}", self._guarded(self._one_model)),
            Route("/metrics", self._guarded(self._tell_metrics)),
            Route("/healthz", self._healthz),
        ]
        paths = frozenset(route.path for route in routes if "{" not in route.path)
        app = Starlette(
            routes=routes,
            middleware=[Middleware(Measured, metrics=self._metrics, paths=paths)],
            exception_handlers={ApiError: _api_error, HTTPException: _http_error, Exception: _server_error},
            lifespan=self._lifespan,
        )
        app.router.redirect_slashes = False  # it would lead to whatever host a request names
        return app

    @property
    def described(self) -> str:
        """How much the server does at a time, in words."""
        return self._writers.described

    @contextlib.asynccontextmanager
    async def _lifespan(self, app: Starlette) -> AsyncIterator[None]:
        self._writers.start()
        try:
            yield
        finally:
            self._writers.close()
            self._reader.shutdown(wait=False, cancel_futures=True)
            self._fetchers.shutdown(wait=False, cancel_futures=True)

    def _guarded(self, endpoint: Endpoint) -> Endpoint:
        async def guarded(request: Request) -> Response:
            self._access.check(request)
            return await endpoint(request)

        return guarded

    async def _healthz(self, request: Request) -> Response:
        return JSONResponse({"status": "ok"})

    async def _tell_metrics(self, request: Request) -> Response:
        return self._metrics.response()

    async def _models(self, request: Request) -> Response:
        return JSONResponse({"object": "list", "data": [self._described()]})

    async def _one_model(self, request: Request) -> Response:
        self._check_model(request.path_params["name"])
        return JSONResponse(self._described())

    def _described(self) -> dict[str, Any]:
        described = {"id": self.name, "object": "model", "created": self._created, "owned_by": "lmflow"}
        return {**described, "max_model_len": self._model.context_length}

    def _check_model(self, name: str) -> None:
        if name != self.name:
            raise ApiError(
                404, f"the model '{name}' does not exist; this server has '{self.name}'", code="model_not_found"
            )

    async def _chat(self, request: Request) -> Response:
        return await self._respond(request, read_chat, ChatReply)

    async def _complete(self, request: Request) -> Response:
        return await self._respond(request, read_completion, CompletionReply)

    async def _respond(self, request: Request, read: Callable[[bytes], Asked], reply_class: type[Reply]) -> Response:
        most = self._options.max_body_bytes
        try:
            body = await read_body(request, most + self._images.room, self._options.client_timeout)
        except ClientDisconnect:
            return Response()  # nobody is there to read it
        asked = read(body)
        self._check_model(asked.model)
        if len(body) - self._images.check(asked.messages, asked.n) > most:
            raise too_long(most, " beside its images")
        jobs = await self._queued(asked)
        read_calls = partial(self._read_calls, asked.tools) if asked.tools else None
        head, tokenizer = reply_head(reply_class, self.name), self._model.model.tokenizer
        tells = asked.logprobs is not None
        replies = [reply_class(head, index, tokenizer, tells, read_calls) for index in range(len(jobs))]

        def leave() -> None:
            for job in jobs:
                self._writers.cancel(job)

        if asked.stream:
            last = {**head, "object": reply_class.piece_object, "choices": []} if asked.include_usage else None
            return EventStream(_documents(jobs, replies, last), leave)
        async with until_left(request.receive, leave):
            return await _whole(jobs, replies, {**head, "object": reply_class.whole_object})

    def _read_calls(self, tools: Sequence[Mapping[str, Any]], text: str) -> tuple[str, tuple[ToolCall, ...]]:
        return self._model.read_calls(text, tools) or (text, ())

    async def _queued(self, asked: Asked) -> list[Job]:
        """Put the answers to a request into the queue, once its prompt is known to fit."""
        if self._writers.full(self._being_read + asked.n):
            raise overloaded()
        self._being_read += asked.n
        try:
            loop = asyncio.get_running_loop()
            if are_fetched(asked.messages):
                messages = await loop.run_in_executor(self._fetchers, self._images.fetched, asked.messages)
                asked = replace(asked, messages=messages)
            answers = await loop.run_in_executor(self._reader, self._answering.begin, asked)
        finally:
            self._being_read -= asked.n
        jobs = jobs_of(answers)
        try:
            self._writers.submit(jobs)
        except QueueFullError:
            raise overloaded() from None
        return jobs


async def _whole(jobs: Sequence[Job], replies: Sequence[Reply], head: Mapping[str, Any]) -> Response:
    tokens: list[list[SampledToken]] = [[] for _ in jobs]
    try:
        async for index, piece in pieces_of(jobs):
            tokens[index] += piece.tokens if piece is not None else ()
    except WritingFailedError as error:
        raise failed(error.__cause__) from None
    choices = [reply.whole(job.answer, told) for job, reply, told in zip(jobs, replies, tokens, strict=True)]
    return JSONResponse({**head, "choices": choices, "usage": usage([job.answer for job in jobs])})


async def _documents(
    jobs: Sequence[Job], replies: Sequence[Reply], usage_head: Mapping[str, Any] | None
) -> AsyncIterator[Mapping[str, Any]]:
    for reply in replies:
        for document in reply.opening():
            yield document
    try:
        async for index, piece in pieces_of(jobs):
            reply = replies[index]
            documents = reply.ending(jobs[index].answer) if piece is None else reply.piece(piece.text, piece.tokens)
            for document in documents:
                yield document
    except WritingFailedError as error:
        yield failed(error.__cause__).body
        return
    if usage_head is not None:
        yield {**usage_head, "usage": usage([job.answer for job in jobs])}


async def _api_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, ApiError)
    return JSONResponse(error.body, error.status, error.headers)


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    unknown = f"there is no {request.method} {request.url.path} here"
    return await _api_error(request, ApiError(error.status_code, unknown, code="unknown_url", headers=error.headers))


async def _server_error(request: Request, error: Exception) -> Response:
    return await _api_error(request, failed())
