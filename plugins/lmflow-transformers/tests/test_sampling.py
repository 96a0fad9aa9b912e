"""The sampling decoder against transformers' generate and against counted samples."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from lmflow_core.api import DecodingRequest, ModelSettings
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
