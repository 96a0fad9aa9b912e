"""The contract of decoders: whose tokens they write, where an answer ends, and that answers do not meet."""

from __future__ import annotations

import time
from itertools import zip_longest
from typing import Any

import pytest

from lmflow_core.contracts.decoder import DecodeStep, DecodingRequest
from lmflow_core.contracts.model import LanguageModel, ModelServices
from lmflow_core.options import fields_of
from lmflow_core.testing.batches import ids_of
from lmflow_core.testing.contracts.decoder_batches import BatchContract
from lmflow_core.testing.contracts.decoding import PROMPT, PROMPTS, Make, answer_of, answers_of, steps_of
from lmflow_core.testing.likelihoods import behind, is_whole, misses, next_logprobs, sharpened

_SAMPLES, _SHARPENED, _SHARP = 200, 100, 0.5
_LONG = 24
_MAKING_SECONDS = 0.02


class DecoderContract(BatchContract):
    """What a decoder must do, tried on a small model that finds few tokens likely.

    Attributes:
        reference: what ``--model`` takes; None is a small model, made in a form that the decoder's runtime takes.
        vocabulary: how many tokens that model has.
        greedy: options with which it takes the likeliest token.
        sampled: options with which it samples from the model's own distribution.
        tolerance: in nats, by which likelihoods of the runtime may differ.
        parting: share of sampled answers of a batch that may part from those given alone, as rounding in other company
            decides for another token; when left out none with torch, and 0.3 in other runtimes.
    """

    def test_greedy_answers_are_the_likeliest_tokens(
        self, needs_exact: None, make: Make, model: LanguageModel, stops: frozenset[int]
    ) -> None:
        """Greedy, each token is the model's own likeliest one, if it is exact."""
        decoder = make(self.greedy)
        for prompt in PROMPTS:
            answer = answer_of(decoder, model, DecodingRequest(prompt, _LONG, stops))
            assert answer, f"no token behind {list(prompt)}"
            (score,) = model.score([behind(prompt, answer)])
            if score.correct is not None:
                assert score.correct == len(answer), (
                    f"{len(answer) - score.correct} of {len(answer)} tokens are not the likeliest behind {list(prompt)}"
                )
            if score.correct is None or prompt == PROMPT:
                place = len(answer) - 1
                logprobs = next_logprobs(model, [*prompt, *answer[:place]], self.vocabulary)
                short = max(logprobs) - logprobs[answer[place]]
                assert short <= self.tolerance, f"token {place} is {short:.3f} nats less likely than the likeliest"

    @pytest.fixture(scope="class")
    @classmethod
    def samples(cls, needs_exact: None, make: Make, model: LanguageModel, stops: frozenset[int]) -> list[list[int]]:
        """Return the first two tokens of answers by many seeds."""
        decoder = make(cls.sampled)
        requests = [DecodingRequest(PROMPT, 2, stops, seed) for seed in range(_SAMPLES)]
        return answers_of(decoder, model, requests)

    def test_first_tokens_follow_the_model(self, samples: list[list[int]], model: LanguageModel) -> None:
        """Sampled, the first tokens by many seeds follow the model's own distribution, if it is exact."""
        assert all(samples), "an answer has no token"
        problems = misses([sample[0] for sample in samples], self._distribution(model, []))
        assert not problems, f"of first tokens by {_SAMPLES} seeds, {'; '.join(problems)}"

    def test_second_tokens_follow_the_model(self, samples: list[list[int]], model: LanguageModel) -> None:
        """Sampled, the tokens behind the likeliest first one follow the model's own distribution, if it is exact."""
        logprobs = self._distribution(model, [])
        first = max(range(self.vocabulary), key=lambda token: logprobs[token])
        seconds = [sample[1] for sample in samples if sample[:1] == [first] and len(sample) > 1]
        assert len(seconds) > _SAMPLES // 10, f"of {_SAMPLES} answers {len(seconds)} begin with the likeliest token"
        problems = misses(seconds, self._distribution(model, [first]))
        assert not problems, f"of tokens behind {first}, {'; '.join(problems)}"

    def test_temperature_sharpens(
        self, spec: Any, needs_exact: None, make: Make, model: LanguageModel, stops: frozenset[int]
    ) -> None:
        """Where it has a temperature, log-probabilities are divided by it, if it is exact."""
        if not has_option(spec, "temperature"):
            return
        decoder = make({**self.sampled, "temperature": _SHARP})
        requests = [DecodingRequest(PROMPT, 1, stops, seed) for seed in range(_SHARPENED)]
        firsts = [answer[0] for answer in answers_of(decoder, model, requests)]
        problems = misses(firsts, sharpened(self._distribution(model, []), _SHARP))
        assert not problems, f"of first tokens at temperature {_SHARP}, {'; '.join(problems)}"

    def _distribution(self, model: LanguageModel, begun: list[int]) -> list[float]:
        logprobs = next_logprobs(model, [*PROMPT, *begun], self.vocabulary)
        assert is_whole(logprobs), "the probabilities do not add up to 1: give vocabulary, its number of tokens"
        return logprobs

    def test_a_stop_ends_the_answer(self, make: Make, model: LanguageModel, stops: frozenset[int]) -> None:
        """A token that ends the answer is given, as its last; the prompt may hold some."""
        for options in (self.greedy, self.sampled):
            decoder = make(options)
            for seed, prompt in enumerate(PROMPTS):
                ending = stops | frozenset(range(seed, self.vocabulary, 4))
                answer = answer_of(decoder, model, DecodingRequest(prompt, _LONG, ending, seed))
                early = [token for token in answer[:-1] if token in ending]
                assert not early, f"the answer goes on behind a stop: {answer}, stopped by {early}"
                assert len(answer) == _LONG or (answer and answer[-1] in ending), f"no stop ends the answer {answer}"

    def test_a_stop_changes_nothing_before_it(
        self, needs_exact: None, make: Make, model: LanguageModel, stops: frozenset[int]
    ) -> None:
        """Greedy, an answer with a stop is the one without, up to there, if it is exact."""
        decoder = make(self.greedy)
        whole = answer_of(decoder, model, DecodingRequest(PROMPT, _LONG, stops))
        for token in dict.fromkeys(whole):
            stopped = answer_of(decoder, model, DecodingRequest(PROMPT, _LONG, stops | {token}))
            wanted = whole[: whole.index(token) + 1]
            assert stopped == wanted, (
                f"stopped by {token} the answer is {stopped}, and begins {wanted} without the stop"
            )

    def test_the_limit_holds(self, make: Make, model: LanguageModel, stops: frozenset[int]) -> None:
        """An answer that no stop ends has as many tokens as were asked for, and none more."""
        for options in (self.greedy, self.sampled):
            decoder = make(options)
            for most in (1, 2, 5, 13):
                for prompt in PROMPTS[:2]:
                    answer = answer_of(decoder, model, DecodingRequest(prompt, most, stops))
                    assert len(answer) <= most, f"{len(answer)} tokens where at most {most} were asked for"
                    assert len(answer) == most or (answer and answer[-1] in stops), f"{len(answer)} tokens of {most}"

    def test_a_seed_repeats_an_answer(self, make: Make, model: LanguageModel, stops: frozenset[int]) -> None:
        """The same seed gives the same answer, from another decoder too; another seed another one, if it samples."""
        requests = [DecodingRequest(PROMPT, 8, stops, seed) for seed in (0, 1, 2, 0)]
        decoder = make(self.sampled)
        answers = answers_of(decoder, model, requests)
        assert answers[0] == answers[-1], "a second answer by the same seed is another one"
        assert answers == answers_of(make(self.sampled), model, requests), "another decoder answers otherwise"
        assert len({tuple(answer) for answer in answers}) > 1, "three seeds give one and the same answer"

    def test_the_prompt_is_not_changed(self, make: Make, model: LanguageModel, stops: frozenset[int]) -> None:
        """The prompt stays as it was, and may be a list or a tuple."""
        decoder, prompt = make(self.greedy), list(PROMPT)
        listed = answer_of(decoder, model, DecodingRequest(prompt, 8, stops))
        assert prompt == list(PROMPT), "it changed the prompt"
        assert listed == answer_of(decoder, model, DecodingRequest(PROMPT, 8, stops)), "a tuple is answered otherwise"

    def test_steps_tell_the_truth(self, make: Make, model: LanguageModel, stops: frozenset[int]) -> None:
        """Steps hold ids of the vocabulary, and no more kept drafts than drafts and tokens."""
        for options in (self.greedy, self.sampled):
            for step in steps_of(make(options), model, DecodingRequest(PROMPT, _LONG, stops)):
                self._check(step)

    def _check(self, step: DecodeStep) -> None:
        foreign = [token for token in step.ids if type(token) is not int or not 0 <= token < self.vocabulary]
        assert not foreign, f"these are no ids of the vocabulary: {foreign}"
        assert step.ids, "a step has no token"
        assert 0 <= step.accepted <= min(step.drafted, len(step.ids)), (
            f"of {step.drafted} drafted tokens {step.accepted} were kept, in a step of {len(step.ids)} tokens"
        )
        assert step.passes >= 0, f"a step took {step.passes} passes"
        assert step.dropped >= 0, f"a step dropped {step.dropped} tokens"

    def test_logprobs_are_the_models(self, spec: Any, make: Make, model: LanguageModel, stops: frozenset[int]) -> None:
        """Where its option logprobs asks, each token has its log-probability by the model, before temperature."""
        if not has_option(spec, "logprobs"):
            return
        decoder = make({**self.sampled, "logprobs": 3})
        steps = steps_of(decoder, model, DecodingRequest(PROMPT, 4, stops, 1))
        answer, told = ids_of(steps), [logprob for step in steps for logprob in step.logprobs]
        assert len(told) == len(answer), f"{len(told)} log-probabilities for {len(answer)} tokens"
        for place, logprob in enumerate(told):
            logprobs = next_logprobs(model, [*PROMPT, *answer[:place]], self.vocabulary)
            wanted = logprobs[answer[place]]
            near = pytest.approx(wanted, abs=self.tolerance)
            assert logprob.logprob == near, f"token {place} has the log-probability {wanted}, not {logprob.logprob}"
            best = sorted(logprobs, reverse=True)[:3]
            values = [value for _, value in logprob.alternatives]
            assert values == pytest.approx(best, abs=self.tolerance), f"the likeliest have {best}, not {values}"
            named = [logprobs[token] for token, _ in logprob.alternatives]
            assert named == pytest.approx(values, abs=self.tolerance), "alternatives have log-probabilities of others"

    def test_answers_in_turns_do_not_meet(self, make: Make, model: LanguageModel, stops: frozenset[int]) -> None:
        """Answers of one decoder that take turns, a step each, are those it gives alone; one may be given up."""
        for options in (self.greedy, self.sampled):
            decoder = make(options)
            requests = [DecodingRequest(prompt, 8, stops, seed) for seed, prompt in enumerate(PROMPTS)]
            alone = answers_of(decoder, model, requests)
            given_up = iter(decoder.decode(model, requests[0]))
            next(given_up)
            turns = zip_longest(*(decoder.decode(model, request) for request in requests))
            together = [ids_of(step for step in steps if step) for steps in zip(*turns, strict=True)]
            assert together == alone, f"in turns the answers are {together}, and {alone} alone"

    def test_preparing_again_changes_nothing(
        self, make: Make, model: LanguageModel, services: ModelServices, stops: frozenset[int]
    ) -> None:
        """It may be prepared twice."""
        decoder, request = make(self.sampled), DecodingRequest(PROMPT, 8, stops)
        once = answer_of(decoder, model, request)
        decoder.prepare(model, services)
        assert answer_of(decoder, model, request) == once, "prepared again, it gives another answer"

    def test_it_is_cheap_to_make(self, target: Any, option_values: Any) -> None:
        """Making one takes no time, as a server makes one for each request that changes options."""
        took = []
        for _ in range(3):
            started = time.process_time()
            self.made(target, option_values)
            took.append(time.process_time() - started)
        assert min(took) < _MAKING_SECONDS, (
            f"making one takes {min(took):.2f} s: get ready in prepare, and keep it there"
        )

    def test_no_prompt_is_too_long(self, spec: Any, make: Make, model: LanguageModel, stops: frozenset[int]) -> None:
        """Where its spec says so, it answers prompts that are longer than the model's context."""
        if not spec.unbounded:
            return
        context = model.context_length
        if context is None:
            pytest.skip("the model does not tell its context: give the reference of one that does")
        decoder = make(self.greedy)
        prompt = [token % self.vocabulary for token in range(3, context + 13)]
        answer = answer_of(decoder, model, DecodingRequest(prompt, 4, stops))
        assert answer, "no token behind a prompt that is longer than the context"


def has_option(spec: Any, name: str) -> bool:
    """Return whether a component has an option of a name."""
    return bool(spec.options) and name in {field.name for field in fields_of(spec.options)}
