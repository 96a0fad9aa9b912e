"""What Prometheus is told."""

from __future__ import annotations

import time

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from lmflow_serve.writing import Job, Writers

_SECONDS = (0.01, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)


class Metrics:
    """The counters of one server."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self.requests = Counter(
            "lmflow_requests", "Requests by path and status.", ("path", "status"), registry=self._registry
        )
        self.seconds = Histogram(
            "lmflow_request_seconds",
            "From a request to the end of its answer.",
            ("path",),
            buckets=_SECONDS,
            registry=self._registry,
        )
        self._first_piece = Histogram(
            "lmflow_first_piece_seconds",
            "From a request to the first text of its answer.",
            buckets=_SECONDS,
            registry=self._registry,
        )
        self._prompt_tokens = Counter("lmflow_prompt_tokens", "Tokens of prompts.", registry=self._registry)
        self._tokens = Counter("lmflow_generated_tokens", "Tokens of answers.", registry=self._registry)
        self._answers = Counter(
            "lmflow_answers", "Answers by the reason they ended.", ("reason",), registry=self._registry
        )

    def watch(self, writers: Writers) -> None:
        """Tell how many jobs wait and run."""
        waiting = Gauge("lmflow_queue_depth", "Requests that wait for a slot.", registry=self._registry)
        waiting.set_function(lambda: writers.waiting)
        running = Gauge("lmflow_running", "Answers that are being written.", registry=self._registry)
        running.set_function(lambda: writers.running)

    def count(self, job: Job) -> None:
        """Count a job that was written."""
        self._prompt_tokens.inc(job.answer.prompt_tokens)
        self._tokens.inc(job.answer.tokens)
        self._answers.labels(job.answer.finish_reason if job.error is None else "error").inc()
        if job.first_seconds is not None:
            self._first_piece.observe(job.first_seconds)

    def response(self) -> Response:
        """Return everything in Prometheus' text format."""
        return Response(generate_latest(self._registry), headers={"Content-Type": CONTENT_TYPE_LATEST})


class Measured:
    """Counts and times the requests of an application. ``paths`` are those told apart; the others are one."""

    def __init__(self, app: ASGIApp, metrics: Metrics, paths: frozenset[str]) -> None:
        self._app = app
        self._metrics = metrics
        self._paths = paths

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        status = "none"

        async def watched(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = str(message["status"])
            await send(message)

        path = scope["path"] if scope["path"] in self._paths else "other"
        started = time.perf_counter()
        try:
            await self._app(scope, receive, watched)
        finally:
            self._metrics.requests.labels(path, status).inc()
            self._metrics.seconds.labels(path).observe(time.perf_counter() - started)
