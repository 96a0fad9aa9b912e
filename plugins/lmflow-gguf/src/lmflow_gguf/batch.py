"""A batch of llama.cpp: answers that share its passes, and join and leave between two of them."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Sequence

from lmflow_core.api import (
    BatchLimits,
    BatchStep,
    DecodeStep,
    DecodingRequest,
    LmflowError,
    attention_crossover,
    check_cache,
    is_read_soon,
    reading_parts,
)
from lmflow_gguf.asked import Answer, Planned, SharedDecoder, check_prompt
from lmflow_gguf.contexts import BATCH, Part
from lmflow_gguf.model import LlamaCppModel
from lmflow_gguf.runtime import Weights, library
from lmflow_gguf.shared import FinishedTexts, Prefix, SharedContext, affordable_tokens, as_array

# Tokens of prompts that a pass reads where somebody waits: nearly as many as keep the processor busy.
_INTERACTIVE_TOKENS = 96


class LlamaBatch:
    """Answers that share the passes of llama.cpp. Satisfies ``RunningBatch``.

    Requests join in the order they came, as soon as there is room for the longest text that may come of them; so none
    that runs is ever without. What a prompt has in common with the beginning of another text is in the same memory;
    while that is still being read, it waits for it.

    The answers are those of ``decode`` up to rounding: llama.cpp multiplies one token with other kernels than several,
    and sums attention in the order in which tokens lie in its memory. Where activations are rounded, the last digits
    grow: to 1e-2 in the logits of SmolLM2-135M with weights in F16, to 0.5 with quantised ones, whose activations have
    8 bits. Then an answer may go on with another of two tokens that are about as likely. Of 50 greedy answers of 64
    tokens, 46 were the same in a batch of 8 with F16, 8 with Q8_0 and 2 with Q4_K_M.

    Args:
        model: loaded; its texts can share a context.
        limits: how much is sampled at a time.
        threads: on the processor; every one when left out.
        pass_tokens: tokens of prompts that a pass reads at most; None leaves it to the limits.

    Raises:
        ModelError: there is not enough memory for a context.
    """

    def __init__(
        self,
        model: LlamaCppModel,
        limits: BatchLimits,
        *,
        threads: int | None = None,
        pass_tokens: int | None = None,
    ) -> None:
        self._model = model
        self._most = min(limits.answers, library().llama_max_parallel_sequences())
        self.cache_tokens = limits.cache_tokens or affordable_tokens(model, self._most)
        self.cache_bytes = self.cache_tokens * model.bytes_per_token
        self._pass_tokens = pass_tokens or (_INTERACTIVE_TOKENS if limits.interactive else BATCH)
        self._crossover = _crossover(model.weights)
        texts = min(2 * self._most, library().llama_max_parallel_sequences())
        self._texts = SharedContext(model, self.cache_tokens, texts, threads)
        self._finished = FinishedTexts(self._texts, texts - self._most)
        self._tickets = itertools.count()
        self._waiting: deque[Answer] = deque()
        self._running: list[Answer] = []

    def check(self, request: DecodingRequest, decoder: SharedDecoder) -> None:
        """Check that a prompt and its longest answer fit the cache.

        Raises:
            RequestError: they do not, however long one waits, or the prompt is empty.
        """
        check_prompt(request)
        check_cache(request, len(request.prompt) + request.max_new_tokens, self.cache_tokens)

    def add(self, request: DecodingRequest, decoder: SharedDecoder) -> int:
        """Let a request join as soon as there is room; return its ticket.

        Raises:
            RequestError: as :meth:`check` does.
        """
        self.check(request, decoder)
        ids = list(request.prompt)
        answer = Answer(next(self._tickets), request, decoder, ids, as_array(ids))
        self._waiting.append(answer)
        return answer.ticket

    def remove(self, ticket: int) -> None:
        """Forget a request."""
        self._waiting = deque(answer for answer in self._waiting if answer.ticket != ticket)
        for answer in self._running:
            if answer.ticket == ticket:
                self._retire(answer)
                return

    def step(self) -> Sequence[BatchStep]:
        """Go on with the answers by one pass of the model; return what came of it.

        Raises:
            ModelError: llama.cpp failed to evaluate the pass, or has no memory for it.
        """
        news = self._admit()
        planned = self._planned()
        if not planned:
            return news
        self._texts.read([one.part for one in planned])
        end = 0
        for one in planned:
            end += len(one.part.ids)
            one.answer.seen += len(one.part.ids) - len(one.draft)
            if one.part.outputs:
                news += self._chosen(one, end - one.part.outputs)
        return news

    def _planned(self) -> list[Planned]:
        """Return what the next pass reads."""
        writing = [answer for answer in self._running if answer.written]
        planned = [self._next_token(answer, len(writing)) for answer in writing]
        left = BATCH - sum(len(one.part.ids) for one in planned)
        reading = [answer for answer in self._running if not answer.written]
        counts = reading_parts(reading, min(left, self._pass_tokens), self._crossover)
        for answer, count in zip(reading, counts, strict=True):
            if count:
                ids = answer.ids[answer.seen : answer.seen + count]
                planned.append(Planned(answer, Part(answer.text, answer.seen, ids, int(count == answer.unread)), ()))
        return planned

    def _next_token(self, answer: Answer, beside: int) -> Planned:
        most = answer.request.max_new_tokens - answer.written - 1
        draft = answer.decoder.draft(answer.ids, most, beside)
        ids = [answer.ids[-1], *draft]
        return Planned(answer, Part(answer.text, answer.seen, ids, len(ids)), draft)

    def _chosen(self, one: Planned, first: int) -> list[BatchStep]:
        """Return what comes of the logits that begin at a place of the pass."""
        answer, request = one.answer, one.answer.request
        assert answer.sampler is not None, "only answers that run are sampled"
        try:
            sampled = answer.sampler.accepted(self._texts.context, first, one.draft)
        except Exception as error:
            self._texts.context.forget(answer.text, answer.seen)
            self._retire(answer)
            return [BatchStep(answer.ticket, None, error)]
        ids, ended = answer.sampler.until_end(sampled[: request.max_new_tokens - answer.written], request.stop_ids)
        answer.ids += ids
        answer.seen += min(len(ids), len(sampled) - 1)
        if one.draft:
            self._texts.context.forget(answer.text, answer.seen)
        news = [BatchStep(answer.ticket, DecodeStep(tuple(ids), len(one.draft), len(ids) - 1))] if ids else []
        if ended or answer.written == request.max_new_tokens:
            self._retire(answer)
            news.append(BatchStep(answer.ticket, None))
        return news

    def _retire(self, answer: Answer) -> None:
        self._running.remove(answer)
        self._finished.keep(answer.text, answer.read)

    def _admit(self) -> list[BatchStep]:
        """Let those that wait join: in their order, except for those that wait for what another is about to read.

        Returns:
            The ends of those that cannot be sampled.
        """
        news: list[BatchStep] = []
        passed: deque[Answer] = deque()
        while self._waiting and len(self._running) < self._most and self._fits(self._waiting[0]):
            answer = self._waiting.popleft()
            prefix = self._prefix(answer)
            if self._is_read_soon(answer, prefix):
                passed.append(answer)
                continue
            try:
                answer.sampler = answer.decoder.sampler(self._model, answer.request)
            except LmflowError as error:
                news.append(BatchStep(answer.ticket, None, error))
                continue
            answer.text, answer.seen = self._texts.open(prefix), prefix.length if prefix else 0
            self._running.append(answer)
        self._waiting.extendleft(reversed(passed))
        self._make_room()
        return news

    def _taken(self) -> int:
        return sum(answer.tokens for answer in self._running)

    def _fits(self, answer: Answer) -> bool:
        return self._taken() + answer.tokens <= self.cache_tokens

    def _make_room(self) -> None:
        """Let texts that ended make way for those that run: what both begin with stays."""
        taken = self._taken()
        while taken + self._finished.tokens > self.cache_tokens and self._finished.forget_oldest():
            pass
        self._texts.make_room(taken + self._finished.tokens)

    def _prefix(self, answer: Answer) -> Prefix | None:
        """Return the longest beginning of a prompt that was read."""
        running = self._texts.longest_prefix(answer.prompt, ((other.text, other.read) for other in self._running))
        finished = self._finished.longest(answer.prompt)
        return max((one for one in (running, finished) if one), key=lambda one: one.length, default=None)

    def _is_read_soon(self, answer: Answer, prefix: Prefix | None) -> bool:
        """Whether another prompt that is being read begins with more of this one than was read."""
        reading = ((other.prompt, other.seen) for other in self._running if not other.written)
        return is_read_soon(answer.prompt, prefix.length if prefix else 0, reading)


def _crossover(weights: Weights) -> float:
    lib, model = library(), weights.handle
    width = lib.llama_model_n_embd(model)
    multiplied = lib.llama_model_n_params(model) - weights.size * width
    return attention_crossover(multiplied, lib.llama_model_n_layer(model), width)
