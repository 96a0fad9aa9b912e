"""The contract of decoders that write several answers together: each is the one that is written alone."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import pytest

from lmflow_core.contracts.decoder import BatchDecoder, BatchLimits, Decoder, DecodingRequest, RunningBatch
from lmflow_core.contracts.model import LanguageModel
from lmflow_core.contracts.spec import TORCH
from lmflow_core.errors import RequestError
from lmflow_core.testing.batches import ids_of, run_at_random, run_batch
from lmflow_core.testing.contracts.decoding import PROMPT, PROMPTS, DecodingContract, Make, answer_of
from lmflow_core.testing.likelihoods import next_logprobs

_ROUNDS, _CACHE = 3, 64
# Of sampled answers, in runtimes whose kernels round otherwise in other company.
_PARTING = 0.3


@dataclass(frozen=True)
class Asked:
    """Requests, each with the decoder that answers it and the answer it gives alone.

    Attributes:
        greedy: how many of them, the first ones, are greedy.
        parting: how many of the others may part from what they are alone.
    """

    requests: list[tuple[DecodingRequest, Any]]
    alone: list[list[int]]
    greedy: int
    parting: int


class BatchContract(DecodingContract):
    """What is checked where the spec has ``batches``."""

    parting: ClassVar[float | None] = None

    @pytest.fixture(scope="class")
    @classmethod
    def asked(cls, spec: Any, make: Make, model: LanguageModel, stops: frozenset[int]) -> Asked:
        """Return requests by decoders of other options, with the answers that are written alone."""
        if not spec.batches:
            pytest.skip("its spec does not offer batches")
        decoders: list[Decoder] = [make(cls.greedy), make(cls.sampled), make(cls.sampled)]
        requests = [
            (DecodingRequest(prompt, 2 + 2 * place, stops, 10 * number + place), decoder)
            for number, decoder in enumerate(decoders)
            for place, prompt in enumerate(PROMPTS)
        ]
        alone = [answer_of(decoder, model, request) for request, decoder in requests]
        share = cls.parting if cls.parting is not None else 0.0 if spec.runtime == TORCH else _PARTING
        greedy = len(PROMPTS)
        return Asked(requests, alone, greedy, int(share * (len(requests) - greedy)))

    @staticmethod
    def _opened(asked: Asked, model: LanguageModel, limits: BatchLimits) -> RunningBatch:
        opener: BatchDecoder = asked.requests[0][1]
        batch = opener.open_batch(model, limits)
        if batch is None:
            pytest.skip("it takes this model one answer at a time: give the reference of one that shares passes")
        return batch

    def _compare(self, asked: Asked, model: LanguageModel, found: Sequence[list[int]], removed: set[int]) -> None:
        """Compare answers with those given alone, but for what rounding decides otherwise in other company."""
        wanted = [
            ids[: len(got)] if n in removed else ids
            for n, (ids, got) in enumerate(zip(asked.alone, found, strict=True))
        ]
        others = [number for number, ids in enumerate(found) if ids != wanted[number]]
        allowed = asked.parting
        for number in others:
            told = f"answer {number} is {found[number]}, and {wanted[number]} alone"
            if number < asked.greedy:
                assert self._is_tie(model, asked.requests[number][0].prompt, found[number], wanted[number]), told
            else:
                allowed -= 1
                assert allowed >= 0, f"{told}; so are others"

    def _is_tie(self, model: LanguageModel, prompt: Sequence[int], one: list[int], other: list[int]) -> bool:
        """Return whether two answers part where two tokens are equally likely, but for rounding."""
        place = next((n for n, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), None)
        if place is None:
            return False
        logprobs = next_logprobs(model, [*prompt, *one[:place]], self.vocabulary)
        return abs(logprobs[one[place]] - logprobs[other[place]]) <= self.tolerance

    def test_a_batch_gives_what_is_given_alone(self, asked: Asked, model: LanguageModel) -> None:
        """Answers of a batch are those that are given alone, whatever is beside them, and each ends once."""
        for answers in (1, 3, 16):
            batch = self._opened(asked, model, BatchLimits(answers=answers, interactive=answers == 3))
            self._compare(asked, model, [ids_of(steps) for steps in run_batch(batch, asked.requests)], set())

    def test_requests_join_and_leave(self, asked: Asked, model: LanguageModel) -> None:
        """Requests that join and leave at any step change no other answer."""
        for seed in range(_ROUNDS):
            batch = self._opened(asked, model, BatchLimits(answers=3))
            found, removed = run_at_random(batch, asked.requests, random.Random(seed))
            self._compare(asked, model, found, removed)

    def test_a_batch_refuses_what_cannot_fit(self, asked: Asked, model: LanguageModel) -> None:
        """A request that can never fit the cache of a batch is refused when it is checked and when it is added."""
        batch = self._opened(asked, model, BatchLimits(cache_tokens=_CACHE))
        if batch.cache_tokens is None:
            return
        sound, decoder = asked.requests[0]
        request = DecodingRequest(PROMPT, batch.cache_tokens + 1, sound.stop_ids)
        for refuse in (batch.check, batch.add):
            try:
                refuse(request, decoder)
            except RequestError:
                continue
            pytest.fail(f"{refuse.__name__} takes a prompt and answer of more than {batch.cache_tokens} tokens")
        (steps,) = run_batch(batch, [(sound, decoder)])
        assert ids_of(steps) == asked.alone[0], "behind a refusal the batch answers otherwise"
