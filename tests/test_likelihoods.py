"""Whether tokens follow a distribution is told from whether they nearly do."""

from __future__ import annotations

import math
import random

import pytest

from lmflow_core.testing.likelihoods import is_whole, misses, sharpened

_LOGITS = [2.0 * math.sin(3 * place) for place in range(40)]
_LOGPROBS = sharpened(_LOGITS, 1.0)


def _sampled(temperature: float, seed: int, count: int = 400) -> list[int]:
    weights = [math.exp(value) for value in sharpened(_LOGITS, temperature)]
    return random.Random(seed).choices(range(len(weights)), weights, k=count)


def test_sharpened_log_probabilities_add_up_to_one() -> None:
    assert is_whole(_LOGPROBS)
    assert is_whole(sharpened(_LOGPROBS, 0.3))
    assert not is_whole(_LOGPROBS[1:])
    assert max(sharpened(_LOGPROBS, 0.3)) > max(_LOGPROBS) > max(sharpened(_LOGPROBS, 3.0))


def test_sampled_tokens_are_never_missed() -> None:
    assert [seed for seed in range(300) if misses(_sampled(1.0, seed), _LOGPROBS)] == []


@pytest.mark.parametrize(("temperature", "told"), [(1.5, "flatter"), (0.65, "sharper")])
def test_another_temperature_is_told(temperature: float, told: str) -> None:
    missed = [misses(_sampled(temperature, seed), _LOGPROBS) for seed in range(50)]
    assert sum(any(told in problem for problem in problems) for problems in missed) >= 48


def test_tokens_in_the_place_of_others_are_told() -> None:
    swapped = [39 - token for token in _sampled(1.0, 0)]
    assert any("chi-square" in problem for problem in misses(swapped, _LOGPROBS))
