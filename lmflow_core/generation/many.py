"""Many answers: written together where the decoder can, else in turns, as others join and leave.

An answer does not depend on the others beside it: it is the one that its request alone would get.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import cast

from lmflow_core.contracts.decoder import (
    BatchDecoder,
    BatchLimits,
    BatchStep,
    Decoder,
    DecoderSpec,
    DecodingRequest,
    RunningBatch,
)
from lmflow_core.contracts.generation import AnswerStream, GeneratedAnswer, Written
from lmflow_core.contracts.model import LanguageModel
from lmflow_core.generation.answers import Answer, stop_tokens
from lmflow_core.generation.context import answer_limit, context_limit
from lmflow_core.generation.in_turns import TurnsBatch

# So many answers may be finished and wait for one before them, for each that is being written.
_AHEAD = 16


class GrowingBatch:
    """Answers of one model that are being written. Satisfies ``AnswerBatch``.

    Args:
        model: loaded.
        decoder: prepared for the model. Each answer has its own, of the same kind.
        spec: that of the decoder; it tells whether it samples for several prompts at once.
        limits: how much is written at a time.
    """

    def __init__(self, model: LanguageModel, decoder: Decoder, spec: DecoderSpec, limits: BatchLimits) -> None:
        opened = cast(BatchDecoder, decoder).open_batch(model, limits) if spec.batches else None
        self._batch: RunningBatch = TurnsBatch(model, limits) if opened is None else opened
        self._limits = limits
        self._answers: dict[int, Answer] = {}

    @property
    def cache_tokens(self) -> int | None:
        """How many tokens of prompts and answers are held at most; None where there is no limit."""
        return self._batch.cache_tokens

    @property
    def cache_bytes(self) -> int | None:
        """How much memory they take; None where that is not known."""
        return self._batch.cache_bytes

    def __len__(self) -> int:
        """Return how many answers wait or are being written."""
        return len(self._answers)

    def check(self, answer: AnswerStream) -> None:
        """Check that an answer fits the cache when it has all tokens it may have. Any thread may call this.

        Raises:
            RequestError: it does not.
        """
        asked = cast(Answer, answer)
        self._batch.check(asked.request, asked.decoder)

    def add(self, answer: AnswerStream) -> None:
        """Let an answer that is not begun join as soon as there is room.

        Raises:
            RequestError: it does not fit the cache.
        """
        asked = cast(Answer, answer)
        self._answers[self._batch.add(asked.begin(), asked.decoder)] = asked

    def step(self) -> list[Written]:
        """Go on with the answers by one pass of the model; return the text that came of it."""
        news = [self._end(ticket) for ticket, answer in [*self._answers.items()] if answer.ended]
        if self._answers:
            news += [self._taken(one) for one in self._batch.step() if one.ticket in self._answers]
        return news

    def _taken(self, news: BatchStep) -> Written:
        answer = self._answers[news.ticket]
        if news.step is None:
            return self._end(news.ticket, error=news.error)
        text = answer.take(news.step)
        # A stop text is unknown to the decoder.
        return self._end(news.ticket, text) if answer.ended else Written(answer, text)

    def _end(self, ticket: int, text: str = "", error: Exception | None = None) -> Written:
        self._batch.remove(ticket)
        answer = self._answers.pop(ticket)
        return Written(answer, text + answer.close(), ended=True, error=error)

    def write(self, answers: Iterable[AnswerStream]) -> Iterator[AnswerStream]:
        """Write answers to their ends and yield them, in the order given; each is asked for when there is room for it.

        Raises:
            RequestError: an answer does not fit the cache.
            Exception: what the decoder of an answer failed with.
        """
        source = iter(answers)
        begun: deque[AnswerStream] = deque()
        ended: set[int] = set()
        exhausted = False
        while True:
            while not exhausted and len(self) < self._limits.answers and len(begun) < _AHEAD * self._limits.answers:
                answer = next(source, None)
                if answer is None:
                    exhausted = True
                else:
                    self.add(answer)
                    begun.append(answer)
            while begun and id(begun[0]) in ended:
                ended.discard(id(begun[0]))
                yield begun.popleft()
            if exhausted and not begun:
                return
            for news in self.step():
                if news.error is not None:
                    raise news.error
                if news.ended:
                    ended.add(id(news.answer))


def generated_answers(
    decoder: Decoder,
    spec: DecoderSpec,
    model: LanguageModel,
    requests: Sequence[DecodingRequest],
    *,
    stops: Sequence[str] = (),
    limits: BatchLimits | None = None,
) -> list[GeneratedAnswer]:
    """Return an answer to each request, in their order.

    Args:
        decoder: prepared for the model.
        spec: that of the decoder.
        model: loaded; it answers with the weights it has now.
        requests: what is asked; an answer ends where the context does.
        stops: texts that end an answer, beside the ``stop_ids`` of its request. Those that are control tokens of the
            model need not be among the ``stop_ids``. :func:`~lmflow_core.generation.answers.own_stops` are those of a
            template and of the model.
        limits: how much is written at a time.

    Raises:
        PromptTooLongError: a prompt leaves no room in the context for a token.
        RequestError: an answer does not fit the cache.
    """
    context = context_limit(model, spec)
    ids = stop_tokens(stops, model.tokenizer)
    answers = []
    for asked in requests:
        most = answer_limit(context, len(asked.prompt), asked.max_new_tokens)
        request = replace(asked, max_new_tokens=most, stop_ids=asked.stop_ids | ids)
        answers.append(Answer(decoder, model, request, stops))
    batch = GrowingBatch(model, decoder, spec, limits or BatchLimits())
    return [cast(Answer, answer).result() for answer in batch.write(answers)]
