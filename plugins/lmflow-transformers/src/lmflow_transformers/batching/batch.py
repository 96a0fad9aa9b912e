"""A batch that answers join and leave between two passes of the model."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch

from lmflow_core.api import (
    BatchLimits,
    BatchStep,
    DecodingRequest,
    attention_crossover,
    check_cache,
    is_read_soon,
    reading_parts,
)
from lmflow_transformers.batching.prefixes import FinishedTexts, Prefix, longest_prefix
from lmflow_transformers.batching.shared_pass import prepare_passes, shared_pass
from lmflow_transformers.batching.trial import cache_bytes_per_token
from lmflow_transformers.batching.turns import BatchAnswer, Turn, marked, next_turn, whole_prompts
from lmflow_transformers.devices import free_memory
from lmflow_transformers.images import check_images, shown_images
from lmflow_transformers.models import CausalModel

# The cache may take this share of the memory that is free when a batch is opened.
_SHARE_OF_FREE_MEMORY = 0.25
_UNKNOWN_CONTEXT = 4096
# Tokens of prompts that a pass reads: as many as keep the device busy, and where somebody waits as few as nearly do.
_PASS_TOKENS = {"cpu": (512, 96), "gpu": (8192, 2048)}


class SharedBatch:
    """Answers that share the passes of a model. Satisfies ``RunningBatch``.

    Requests join in the order they came, as soon as the cache has room for the longest text that may come of them; so
    none that runs is ever without. What a prompt has in common with the beginning of another text is copied from there;
    while that is still being read, it waits for it.

    The decoders of its answers are ``SharedBatchDecoder``.

    Args:
        model: loaded; it keeps texts apart.
        limits: how much is sampled at a time.
        bytes_per_token: memory of one token's keys and values.
        pass_tokens: tokens of prompts that a pass reads at most; None leaves it to the device.
    """

    def __init__(
        self, model: CausalModel, limits: BatchLimits, bytes_per_token: int, *, pass_tokens: int | None = None
    ) -> None:
        self._model = model
        self._most = limits.answers
        self.cache_tokens = limits.cache_tokens or _affordable_tokens(model, limits.answers, bytes_per_token)
        self.cache_bytes = self.cache_tokens * bytes_per_token
        self._pass_tokens = pass_tokens or _pass_tokens(model, limits)
        self._crossover = _crossover(model)
        self._tickets = itertools.count()
        self._waiting: deque[BatchAnswer] = deque()
        self._running: list[BatchAnswer] = []
        self._finished = FinishedTexts(limits.answers)
        prepare_passes(model)

    def check(self, request: DecodingRequest, decoder: Any) -> None:
        """Check that a prompt and its longest answer fit the cache.

        Raises:
            RequestError: they do not, however long one waits; or images are missing.
        """
        check_images(self._model, request)
        needed = decoder.layout(self._model).tokens(len(request.prompt) + request.max_new_tokens)
        check_cache(request, needed, self.cache_tokens)

    def add(self, request: DecodingRequest, decoder: Any) -> int:
        """Let a request join as soon as there is room; return its ticket.

        Raises:
            RequestError: as :meth:`check` does.
        """
        self.check(request, decoder)
        prompt = marked(request)
        chooser, layout = decoder.chooser(self._model, request), decoder.layout(self._model)
        answer = BatchAnswer(next(self._tickets), request, chooser, layout, list(request.prompt), prompt)
        self._waiting.append(answer)
        return answer.ticket

    def remove(self, ticket: int) -> None:
        """Forget a request."""
        self._waiting = deque(answer for answer in self._waiting if answer.ticket != ticket)
        for answer in self._running:
            if answer.ticket == ticket:
                self._retire(answer)
                return

    @torch.inference_mode()
    def step(self) -> Sequence[BatchStep]:
        """Go on with the answers by one pass of the model; return what came of it."""
        news = self._admit()
        turns = self._turns()
        if not turns:
            return news
        for turn, logits in zip(turns, shared_pass(self._model, [turn.part for turn in turns]), strict=True):
            if turn.part.outputs:
                news += self._chosen(turn, logits)
            else:
                turn.answer.opened.end(len(turn.part.ids))
        return news

    def _turns(self) -> list[Turn]:
        """Return what the next pass reads: of each answer its last token, and parts of prompts."""
        reading = [answer for answer in self._running if not answer.written]
        rooms = [answer.room() for answer in reading]
        counts = reading_parts(reading, self._pass_tokens, self._crossover, rooms)
        writing = [answer for answer in self._running if answer.written]
        # A network puts what it sees in the place of all such tokens of a pass.
        written_images = any(answer.ids[-1] in self._model.media_ids for answer in writing)
        counts = whole_prompts(reading, counts, showing=written_images)
        parts = [(answer, 1) for answer in writing]
        parts += [part for part in zip(reading, counts, strict=True) if part[1]]
        return [next_turn(answer, count, beside=len(parts)) for answer, count in parts]

    def _chosen(self, turn: Turn, logits: torch.Tensor) -> list[BatchStep]:
        answer, read = turn.answer, len(turn.part.ids) - len(turn.draft)
        try:
            step = answer.chooser.choose(answer.ids, turn.draft, logits)
        except Exception as error:
            answer.opened.end(read)
            self._retire(answer)
            return [BatchStep(answer.ticket, None, error)]
        answer.opened.end(read + len(step.ids) - 1)
        answer.ids += step.ids
        told, answer.dropped = answer.dropped, answer.opened.dropped
        news = [BatchStep(answer.ticket, replace(step, dropped=answer.dropped - told))]
        if answer.finished:
            self._retire(answer)
            news.append(BatchStep(answer.ticket, None))
        return news

    def _retire(self, answer: BatchAnswer) -> None:
        self._running.remove(answer)
        self._finished.keep(answer.layout, answer.text, answer.opened)
        answer.cache = None

    def _admit(self) -> list[BatchStep]:
        """Let those that wait join: in their order, except for those that wait for what another is about to read.

        Return news of those whose images cannot be shown.
        """
        passed: deque[BatchAnswer] = deque()
        failed: list[BatchStep] = []
        while self._waiting and len(self._running) < self._most and self._makes_room(self._waiting[0].tokens):
            answer = self._waiting.popleft()
            prefix = self._prefix(answer)
            if self._is_read_soon(answer, prefix):
                passed.append(answer)
                continue
            try:
                answer.shown = shown_images(self._model, answer.request)
            except Exception as error:
                failed.append(BatchStep(answer.ticket, None, error))
                continue
            if prefix is None:
                answer.cache = answer.layout.open(answer.capacity)
            else:
                answer.cache = prefix.cache.fork(prefix.length, answer.capacity)
            self._running.append(answer)
        self._waiting.extendleft(reversed(passed))
        return failed

    def _prefix(self, answer: BatchAnswer) -> Prefix | None:
        """Return the longest beginning of a prompt that was read."""
        alike = [other for other in self._running if other.layout == answer.layout]
        texts = [(other.text, other.opened) for other in alike]
        running = longest_prefix(answer.prompt, texts)
        finished = self._finished.longest(answer.layout, answer.prompt)
        longest = max((one for one in (running, finished) if one), key=lambda one: one.length, default=None)
        return longest and longest.without_part_of(answer.request.media)

    def _is_read_soon(self, answer: BatchAnswer, prefix: Prefix | None) -> bool:
        """Whether another prompt that is being read begins with more of this one than was read."""
        alike = (other for other in self._running if not other.written and other.layout == answer.layout)
        reading = ((other.prompt, other.seen) for other in alike)
        return is_read_soon(answer.prompt, prefix.length if prefix else 0, reading)

    def _makes_room(self, tokens: int) -> bool:
        """Whether the cache has room for so many tokens; texts that ended make way."""
        taken = sum(answer.tokens for answer in self._running)
        if taken + tokens > self.cache_tokens:
            return False
        while taken + self._finished.tokens + tokens > self.cache_tokens and self._finished.forget_oldest():
            pass
        return True


def open_shared_batch(model: CausalModel, limits: BatchLimits) -> SharedBatch | None:
    """Return a batch of a loaded model; None where texts cannot share its passes, or its images be read in these."""
    if model.sees_ahead:
        return None
    bytes_per_token = cache_bytes_per_token(model)
    return None if bytes_per_token is None else SharedBatch(model, limits, bytes_per_token)


def _crossover(model: CausalModel) -> float:
    text = model.base.config.get_text_config()
    embedded = {id(parameter) for parameter in model.base.get_input_embeddings().parameters()}
    weights = sum(parameter.numel() for parameter in model.base.parameters() if id(parameter) not in embedded)
    return attention_crossover(weights, text.num_hidden_layers, text.hidden_size)


def _pass_tokens(model: CausalModel, limits: BatchLimits) -> int:
    batch, interactive = _PASS_TOKENS["cpu" if model.device.type == "cpu" else "gpu"]
    return interactive if limits.interactive else batch


def _affordable_tokens(model: CausalModel, answers: int, bytes_per_token: int) -> int:
    """Return for how many tokens there is memory, at most as many as the answers can have."""
    free = int(_SHARE_OF_FREE_MEMORY * free_memory(model.device))
    return max(1, min(answers * (model.context_length or _UNKNOWN_CONTEXT), free // bytes_per_token))
