"""Answers are written in threads of their own, some at a time; the others wait in a bounded queue."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass

from lmflow_core.api import AnswerBatch, AnswerStream, BatchLimits, ChatModel, RequestError, SampledToken, Written

_LAST_TOKEN_SECONDS = 5.0
# Answers that are written together: more gain little on a processor, and each waits longer for its tokens.
_TOGETHER = 16
_LOG = logging.getLogger("lmflow.serve")


class QueueFullError(Exception):
    """As many requests wait as may."""


class WritingFailedError(Exception):
    """An answer could not be written: the cause is what the request asks for (``RequestError``), or the model."""


@dataclass(frozen=True)
class Piece:
    """A piece of an answer's text, and the tokens that begin in it."""

    text: str
    tokens: tuple[SampledToken, ...]


class Job:
    """An answer on its way from the thread that writes it to the event loop that sends it.

    A slow reader holds up nobody: what is written waits here, at most one piece for each token of the answer.

    Attributes:
        index: number of the answer among those to one request, which share the queue ``pieces``.
        error: what the answer failed with; None while it did not.
        first_seconds: time from the request to the first piece; None before that.
    """

    def __init__(
        self, answer: AnswerStream, index: int = 0, pieces: asyncio.Queue[tuple[int, Piece | None]] | None = None
    ) -> None:
        self.answer = answer
        self.index = index
        self.error: Exception | None = None
        self.first_seconds: float | None = None
        self._told = 0
        self._begun = time.perf_counter()
        self._loop = asyncio.get_running_loop()
        self.pieces: asyncio.Queue[tuple[int, Piece | None]] = pieces or asyncio.Queue()

    def take(self, text: str) -> None:
        """Take text that was written; :meth:`end` follows behind the last."""
        if not text:
            return
        begun, sampled = self._told, self.answer.sampled
        while self._told < len(sampled) and sampled[self._told].offset < len(self.answer.text):
            self._told += 1
        if self.first_seconds is None:
            self.first_seconds = time.perf_counter() - self._begun
        self._tell(Piece(text, tuple(sampled[begun : self._told])))

    def fail(self, error: Exception) -> None:
        """Note that the answer failed; :meth:`end` follows."""
        self.error = error
        if not isinstance(error, RequestError):
            _LOG.error("an answer could not be written", exc_info=error)

    def end(self) -> None:
        """Tell the reader that nothing follows."""
        self._tell(None)

    def _tell(self, piece: Piece | None) -> None:
        with contextlib.suppress(RuntimeError):  # the loop has ended, and its readers with it
            self._loop.call_soon_threadsafe(self.pieces.put_nowait, (self.index, piece))


def jobs_of(answers: Sequence[AnswerStream]) -> list[Job]:
    """Return a job for each answer to a request."""
    pieces: asyncio.Queue[tuple[int, Piece | None]] = asyncio.Queue()
    return [Job(answer, index, pieces) for index, answer in enumerate(answers)]


async def pieces_of(jobs: Sequence[Job]) -> AsyncIterator[tuple[int, Piece | None]]:
    """Yield the pieces of the jobs of a request with the numbers of their answers, as they come; None ends an answer.

    Raises:
        WritingFailedError: an answer could not be written.
    """
    left = len(jobs)
    while left:
        index, piece = await jobs[0].pieces.get()
        if piece is None:
            left -= 1
            if jobs[index].error is not None:
                raise WritingFailedError from jobs[index].error
        yield index, piece


class Writers:
    """The threads that write answers, and the jobs that wait for them, first come first served.

    A model that samples for several answers together has one thread, else there is one for each answer.

    Args:
        model: writes the answers.
        slots: how many are written at a time; None leaves it to the model.
        max_queue: how many more may wait.
        cache_tokens: how many tokens of prompts and answers are held; None leaves it to the model.
        on_end: called with each job that was written.
    """

    def __init__(
        self,
        model: ChatModel,
        *,
        slots: int | None,
        max_queue: int,
        cache_tokens: int | None,
        on_end: Callable[[Job], None],
    ) -> None:
        self._model = model
        self.slots = slots or (_TOGETHER if model.batches else 1)
        self._max_queue = max_queue
        self._on_end = on_end
        self._waiting: deque[Job] = deque()
        self._running: set[Job] = set()
        self._changed = threading.Condition()
        self._closed = False
        answers, threads = (self.slots, 1) if model.batches else (1, self.slots)
        self._limits = BatchLimits(answers=answers, cache_tokens=cache_tokens, interactive=True)
        self._first = model.open_batch(self._limits)
        self._threads = [threading.Thread(target=self._work, daemon=True, name=f"writer-{n}") for n in range(threads)]

    @property
    def described(self) -> str:
        """How many answers are written at a time, and what their cache holds, in words."""
        answers = f"{self.slots} answers at a time" if self.slots > 1 else "one answer at a time"
        tokens, size = self._first.cache_tokens, self._first.cache_bytes
        if tokens is None:
            return answers
        return answers + f", a cache of {tokens} tokens" + (f" (at most {size / 1e9:.1f} GB)" if size else "")

    def check(self, answer: AnswerStream) -> None:
        """Check that an answer fits the cache.

        Raises:
            RequestError: it does not, however long it waits.
        """
        self._first.check(answer)

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

    def full(self, jobs: int = 1) -> bool:
        """Whether so many more jobs would find no place."""
        return len(self._waiting) + len(self._running) + jobs > self.slots + self._max_queue

    def submit(self, jobs: Sequence[Job]) -> None:
        """Put jobs behind those that wait, all or none.

        Raises:
            QueueFullError: there is no place.
        """
        with self._changed:
            if self.full(len(jobs)):
                raise QueueFullError
            self._waiting.extend(jobs)
            self._changed.notify()

    def cancel(self, job: Job) -> None:
        """Take a job out of the queue, or end it before its next token; nothing happens when it is done."""
        with self._changed:
            job.answer.cancel()
            if job in self._waiting:
                self._waiting.remove(job)
                job.end()

    def _work(self) -> None:
        batch: AnswerBatch = self._model.open_batch(self._limits)
        jobs: dict[AnswerStream, Job] = {}
        while self._join(batch, jobs):
            try:
                news = batch.step()
            except Exception as error:
                # The model failed for all of them; those that come now begin with a new batch.
                news = [Written(answer, "", ended=True, error=error) for answer in jobs]
                batch = self._model.open_batch(self._limits)
            for one in news:
                self._take(one, jobs)

    def _join(self, batch: AnswerBatch, jobs: dict[AnswerStream, Job]) -> bool:
        """Let jobs that wait join a batch; wait for one where it is empty. False when nothing will ever be left."""
        with self._changed:
            if not jobs:
                self._changed.wait_for(lambda: self._waiting or self._closed)
            joining: list[Job] = []
            while self._waiting and not self._closed and len(jobs) + len(joining) < self._limits.answers:
                joining.append(self._waiting.popleft())
            self._running.update(joining)
        for job in joining:
            jobs[job.answer] = job
            try:
                batch.add(job.answer)
            except Exception as error:
                self._take(Written(job.answer, "", ended=True, error=error), jobs)
        return bool(jobs) or not self._closed

    def _take(self, news: Written, jobs: dict[AnswerStream, Job]) -> None:
        job = jobs[news.answer]
        job.take(news.text)
        if news.error is not None:
            job.fail(news.error)
        if news.ended:
            del jobs[news.answer]
            with self._changed:
                self._running.discard(job)
            self._on_end(job)
            job.end()
