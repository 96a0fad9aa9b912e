"""The sampling decoder against transformers' generate and against counted samples."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from lmflow_core.api import DecodeStep, DecodingRequest, ModelSettings
from lmflow_transformers.models import CausalModel, CausalModelLoader
from lmflow_transformers.options import SamplingOptions
from lmflow_transformers.sampling import SamplingDecoder

_PROMPT = [10, 20, 30, 40]


@pytest.fixture(scope="module")
def model(tiny_model: Path) -> CausalModel:
    opened = CausalModelLoader().open(str(tiny_model), ModelSettings(model="tiny", device="cpu"))
    opened.load()
    return opened


def _sample(
    model: CausalModel, count: int, seed: int = 0, stop: frozenset[int] = frozenset(), **options: Any
) -> list[int]:
    decoder = SamplingDecoder(SamplingOptions(**options))
    steps = decoder.decode(model, DecodingRequest(_PROMPT, count, stop, seed))
    return [token for step in steps for token in step.ids]


@pytest.mark.parametrize("penalty", [1.0, 1.3])
def test_greedy_equals_generate(model: CausalModel, tiny_model: Path, penalty: float) -> None:
    network = AutoModelForCausalLM.from_pretrained(tiny_model)
    expected = network.generate(
        torch.tensor([_PROMPT]),
        attention_mask=torch.ones(1, 4),
        max_new_tokens=30,
        do_sample=False,
        repetition_penalty=penalty,
        eos_token_id=None,
    )
    assert _sample(model, 30, repetition_penalty=penalty) == expected[0, 4:].tolist()


def test_a_seed_repeats_and_another_differs(model: CausalModel) -> None:
    first = _sample(model, 20, seed=1, temperature=1.0)
    assert _sample(model, 20, seed=1, temperature=1.0) == first
    assert _sample(model, 20, seed=2, temperature=1.0) != first


def test_a_stop_token_comes_last(model: CausalModel) -> None:
    greedy = _sample(model, 10)
    stop = greedy[3]
    assert _sample(model, 10, stop=frozenset([stop])) == greedy[: greedy.index(stop) + 1]


def test_samples_follow_the_processed_distribution(model: CausalModel) -> None:
    with torch.no_grad():
        logits = model.network(input_ids=torch.tensor([_PROMPT])).logits[0, -1] / 0.7
    kept = logits.topk(5).indices
    probabilities = logits[kept].softmax(-1)
    count = 2000
    counts = Counter(_sample(model, 1, seed=seed, temperature=0.7, top_k=5)[0] for seed in range(count))
    assert set(counts) <= set(kept.tolist())
    statistic = sum(
        (counts[int(token)] - count * float(p)) ** 2 / (count * float(p))
        for token, p in zip(kept, probabilities, strict=True)
    )
    assert statistic < 18.47  # chi-square, 4 degrees of freedom, p = 0.001


def test_min_p_of_one_leaves_only_the_likeliest_token(model: CausalModel) -> None:
    greedy = _sample(model, 1, seed=0)
    free = {_sample(model, 1, seed=seed, temperature=1.5)[0] for seed in range(20)}
    assert len(free) > 1
    assert all(_sample(model, 1, seed=seed, temperature=1.5, min_p=1.0) == greedy for seed in range(20))


def test_top_p_keeps_the_smallest_set_that_holds_the_mass(model: CausalModel) -> None:
    with torch.no_grad():
        probabilities = model.network(input_ids=torch.tensor([_PROMPT])).logits[0, -1].softmax(-1)
    ordered = probabilities.sort(descending=True)
    size = int((ordered.values.cumsum(0) < 0.02).sum()) + 1
    allowed = set(ordered.indices[:size].tolist())
    sampled = {_sample(model, 1, seed=seed, temperature=1.0, top_p=0.02)[0] for seed in range(200)}
    assert sampled <= allowed
    assert len(sampled) > 1


@pytest.mark.parametrize("temperature", [0.0, 0.7])
def test_logprobs_are_those_of_the_model_itself(model: CausalModel, temperature: float) -> None:
    decoder = SamplingDecoder(SamplingOptions(logprobs=3, temperature=temperature, repetition_penalty=1.5))
    steps = list(decoder.decode(model, DecodingRequest(_PROMPT, 6, seed=3)))
    sampled = [token for step in steps for token in step.ids]
    with torch.no_grad():
        logits = model.network(input_ids=torch.tensor([_PROMPT + sampled])).logits[0, len(_PROMPT) - 1 : -1]
    expected = logits.log_softmax(-1)
    for step, token, row in zip(steps, sampled, expected, strict=True):
        (told,) = step.logprobs
        assert told.logprob == pytest.approx(float(row[token]), abs=1e-4)
        best = row.topk(3)
        assert [number for number, _ in told.alternatives] == best.indices.tolist()
        assert [value for _, value in told.alternatives] == pytest.approx(best.values.tolist(), abs=1e-4)


def test_logprobs_are_given_only_when_asked_for(model: CausalModel) -> None:
    (step,) = SamplingDecoder().decode(model, DecodingRequest(_PROMPT, 1))
    assert step.logprobs == ()
    without = SamplingDecoder(SamplingOptions(logprobs=0))
    (step,) = without.decode(model, DecodingRequest(_PROMPT, 1))
    assert step.logprobs[0].alternatives == ()
    assert step.logprobs[0].logprob < 0


def _alone(decoder: SamplingDecoder, model: CausalModel, request: DecodingRequest) -> list[int]:
    return [token for step in decoder.decode(model, request) for token in step.ids]


def _together(
    decoder: SamplingDecoder, model: CausalModel, requests: Sequence[DecodingRequest]
) -> list[list[DecodeStep]]:
    steps: list[list[DecodeStep]] = [[] for _ in requests]
    for place, step in decoder.decode_many(model, requests):
        steps[place].append(step)
    return steps


def _ids(steps: Sequence[DecodeStep]) -> list[int]:
    return [token for step in steps for token in step.ids]


_PROMPTS = [[10, 20, 30, 40], [7], list(range(50, 70)), [10, 20]]


@pytest.mark.parametrize("values", [{}, {"temperature": 1.0, "top_p": 0.9, "repetition_penalty": 1.3}], ids=str)
def test_prompts_answered_together_get_the_answers_they_get_alone(model: CausalModel, values: dict[str, Any]) -> None:
    decoder = SamplingDecoder(SamplingOptions(logprobs=1, **values))
    asked = [DecodingRequest(prompt, 25, seed=seed) for seed, prompt in enumerate(_PROMPTS)]
    alone = [list(decoder.decode(model, request)) for request in asked]
    # Answers of several lengths: by a limit of their own, and by stops at different places.
    stops = [frozenset([alone[0][4].ids[0]]), frozenset(), frozenset([alone[2][11].ids[0]]), frozenset()]
    most = [25, 25, 25, 3]
    asked = [replace(a, stop_ids=stop, max_new_tokens=m) for a, stop, m in zip(asked, stops, most, strict=True)]
    expected = [_alone(decoder, model, request) for request in asked]
    assert len({len(ids) for ids in expected}) > 2
    together = _together(decoder, model, asked)
    assert [_ids(steps) for steps in together] == expected
    for mine, theirs in zip(together, alone, strict=True):
        for step, other in zip(mine, theirs, strict=False):
            assert step.logprobs[0].logprob == pytest.approx(other.logprobs[0].logprob, abs=1e-4)


@pytest.mark.parametrize("length", [1, 4])
def test_a_batch_whose_last_answers_end_by_a_stop_at_the_same_step(model: CausalModel, length: int) -> None:
    decoder = SamplingDecoder(SamplingOptions(temperature=1.0))
    ends = [_alone(decoder, model, DecodingRequest(prompt, length))[-1:] for prompt in _PROMPTS]
    asked = [DecodingRequest(prompt, 25, frozenset(end)) for prompt, end in zip(_PROMPTS, ends, strict=True)]
    expected = [_alone(decoder, model, request) for request in asked]
    assert {len(ids) for ids in expected} == {length}
    assert [_ids(steps) for steps in _together(decoder, model, asked)] == expected


def test_a_batch_that_ends_row_by_row(model: CausalModel) -> None:
    decoder = SamplingDecoder()
    asked = [DecodingRequest(prompt, length) for length, prompt in enumerate(_PROMPTS, 1)]
    together = [_ids(steps) for steps in _together(decoder, model, asked)]
    assert [len(ids) for ids in together] == [1, 2, 3, 4]
    assert together == [_alone(decoder, model, request) for request in asked]
