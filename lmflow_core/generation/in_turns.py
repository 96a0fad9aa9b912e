"""A batch of decoders that sample for one prompt at a time: each answer gets a step in turn."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Iterator, Sequence

from lmflow_core.contracts.decoder import BatchLimits, BatchStep, Decoder, DecodeStep, DecodingRequest
from lmflow_core.contracts.model import LanguageModel


class TurnsBatch:
    """Answers that take turns. Satisfies ``RunningBatch``."""

    cache_tokens: int | None = None
    cache_bytes: int | None = None

    def __init__(self, model: LanguageModel, limits: BatchLimits) -> None:
        self._model = model
        self._most = limits.answers
        self._tickets = itertools.count()
        self._waiting: deque[tuple[int, DecodingRequest, Decoder]] = deque()
        self._running: dict[int, Iterator[DecodeStep]] = {}

    def check(self, request: DecodingRequest, decoder: Decoder) -> None:
        """Accept every request: each decoder sees to its own memory."""

    def add(self, request: DecodingRequest, decoder: Decoder) -> int:
        """Let a request join as soon as there is room; return its ticket."""
        ticket = next(self._tickets)
        self._waiting.append((ticket, request, decoder))
        return ticket

    def remove(self, ticket: int) -> None:
        """Forget a request."""
        self._waiting = deque(one for one in self._waiting if one[0] != ticket)
        steps = self._running.pop(ticket, None)
        close = getattr(steps, "close", None)  # a generator gives back what it holds
        if close is not None:
            close()

    def step(self) -> Sequence[BatchStep]:
        """Go on with every answer by one step of its decoder."""
        while self._waiting and len(self._running) < self._most:
            ticket, request, decoder = self._waiting.popleft()
            self._running[ticket] = decoder.decode(self._model, request)
        news = [self._next(ticket, steps) for ticket, steps in self._running.items()]
        for one in news:
            if one.step is None:
                del self._running[one.ticket]
        return news

    @staticmethod
    def _next(ticket: int, steps: Iterator[DecodeStep]) -> BatchStep:
        try:
            return BatchStep(ticket, next(steps, None))
        except Exception as error:
            return BatchStep(ticket, None, error)
