"""Answers are written in threads of their own, a few at a time; the others wait in a bounded queue."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
import time
from collections import deque
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass

from lmflow_core.api import AnswerStream, SampledToken

_LAST_TOKEN_SECONDS = 5.0
_LOG = logging.getLogger("lmflow.serve")


class QueueFullError(Exception):
    """As many requests wait as may."""


class WritingFailedError(Exception):
    """The model failed while it wrote an answer."""


@dataclass(frozen=True)
class Piece:
    """A piece of an answer's text, and the tokens that begin in it."""

    text: str
    tokens: tuple[SampledToken, ...]


class Job:
    """An answer on its way from the thread that writes it to the event loop that sends it.

    A slow reader holds up nobody: what is written waits here, at most one piece for each token of the answer.

    Attributes:
        failed: whether the model failed while it wrote.
        first_seconds: time from the request to the first piece; None before that.
    """

    def __init__(self, answer: AnswerStream) -> None:
        self.answer = answer
        self.failed = False
        self.first_seconds: float | None = None
        self._begun = time.perf_counter()
        self._loop = asyncio.get_running_loop()
        self._pieces: asyncio.Queue[Piece | None] = asyncio.Queue()

    def write(self) -> None:
        """Write the answer, in a thread; :meth:`end` follows once its slot is free."""
        told = 0
        try:
            for text in self.answer:
                begun = told
                while told < len(self.answer.sampled) and self.answer.sampled[told].offset < len(self.answer.text):
                    told += 1
                if self.first_seconds is None:
                    self.first_seconds = time.perf_counter() - self._begun
                self._tell(Piece(text, tuple(self.answer.sampled[begun:told])))
        except Exception:
            self.failed = True
            _LOG.exception("an answer could not be written")

    def end(self) -> None:
        """Tell the reader that nothing follows."""
        self._tell(None)

    def _tell(self, piece: Piece | None) -> None:
        with contextlib.suppress(RuntimeError):  # the loop has ended, and its readers with it
            self._loop.call_soon_threadsafe(self._pieces.put_nowait, piece)

    async def pieces(self) -> AsyncIterator[Piece]:
        """Yield the pieces as they come.

        Raises:
            WritingFailedError: the model failed.
        """
        while (piece := await self._pieces.get()) is not None:
            yield piece
        if self.failed:
            raise WritingFailedError


class Writers:
    """The threads that write answers, and the jobs that wait for them, first come first served."""

    def __init__(self, slots: int, max_queue: int, on_end: Callable[[Job], None]) -> None:
        self._slots = slots
        self._max_queue = max_queue
        self._on_end = on_end
        self._waiting: deque[Job] = deque()
        self._running: set[Job] = set()
        self._changed = threading.Condition()
        self._closed = False
        self._threads = [threading.Thread(target=self._work, daemon=True, name=f"writer-{n}") for n in range(slots)]

    def start(self) -> None:
        """Start the threads."""
        for thread in self._threads:
            thread.start()

    def close(self) -> None:
        """End what runs and waits: each answer before its next token, for which the model gets a few seconds."""
        with self._changed:
            self._closed = True
            for job in [*self._waiting, *self._running]:
                job.answer.cancel()
            self._changed.notify_all()
        for thread in self._threads:
            thread.join(_LAST_TOKEN_SECONDS)

    @property
    def waiting(self) -> int:
        """How many jobs wait."""
        return len(self._waiting)

    @property
    def running(self) -> int:
        """How many jobs are being written."""
        return len(self._running)

    @property
    def full(self) -> bool:
        """Whether one more job would find no place."""
        return len(self._waiting) + len(self._running) >= self._slots + self._max_queue

    def submit(self, job: Job) -> None:
        """Put a job behind those that wait.

        Raises:
            QueueFullError: there is no place.
        """
        with self._changed:
            if self.full:
                raise QueueFullError
            self._waiting.append(job)
            self._changed.notify()

    def cancel(self, job: Job) -> None:
        """Take a job out of the queue, or end it before its next token; nothing happens when it is done."""
        with self._changed:
            job.answer.cancel()
            if job in self._waiting:
                self._waiting.remove(job)
                job.end()

    def _work(self) -> None:
        while (job := self._next()) is not None:
            job.write()
            with self._changed:
                self._running.discard(job)
            self._on_end(job)
            job.end()

    def _next(self) -> Job | None:
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._closed)
            if self._closed:
                return None
            job = self._waiting.popleft()
            self._running.add(job)
            return job
