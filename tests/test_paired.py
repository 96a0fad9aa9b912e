"""The paired test beside all ways to swap two runs."""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Sequence

import pytest

from lmflow_core.workflows.paired_test import sign_flip_test


def _enumerated(differences: Sequence[float]) -> float:
    reached = abs(math.fsum(differences)) - 1e-9
    ways = [*itertools.product((1, -1), repeat=len(differences))]
    hits = sum(abs(sum(s * d for s, d in zip(signs, differences, strict=True))) >= reached for signs in ways)
    return hits / len(ways)


@pytest.mark.parametrize("seed", range(5))
def test_right_and_wrong_are_tested_exactly(seed: int) -> None:
    source = random.Random(seed)
    differences = [source.choice((-1, 0, 0, 1, 1)) * 0.25 for _ in range(12)]
    assert sign_flip_test(differences) == pytest.approx(_enumerated(differences), rel=1e-12)


@pytest.mark.parametrize("seed", range(5))
def test_other_scores_are_tested_by_drawn_swaps(seed: int) -> None:
    source = random.Random(seed)
    differences = [source.gauss(0.3, 1) for _ in range(12)]
    exact = _enumerated(differences)
    assert sign_flip_test(differences) == pytest.approx(exact, abs=4 * math.sqrt(exact * (1 - exact) / 9999) + 2e-4)


def test_what_does_not_differ_is_no_evidence() -> None:
    assert sign_flip_test([]) == sign_flip_test([0.0, 0.0]) == 1.0
    assert sign_flip_test([1, -1]) == 1.0


def test_many_questions_are_no_burden_to_numbers() -> None:
    assert sign_flip_test([1.0] * 3000) == 0.0  # 2 to the power of -2999 is below any float
    assert sign_flip_test([1.0] * 1500 + [-1.0] * 1500) == 1.0
