"""Declares the objectives of reward models and the benchmark ``pairwise-accuracy``."""

from __future__ import annotations

from collections.abc import Iterable

from lmflow_core.api import BenchmarkSpec, ObjectiveSpec, hookimpl
from lmflow_reward.options import RewardOptions


@hookimpl
def lmflow_register_objectives() -> Iterable[ObjectiveSpec]:
    """Offer reward models."""
    yield ObjectiveSpec(
        name="reward",
        target="lmflow_reward.objective:RewardObjective",
        summary="A reward model, learned from pairs of answers.",
        examples=("preference",),
        tasks=("regression",),
        options=RewardOptions,
    )
    yield ObjectiveSpec(
        name="reward-scores",
        target="lmflow_reward.objective:ScoreObjective",
        summary="A reward model, learned from scores of answers.",
        examples=("candidates",),
        tasks=("regression",),
    )


@hookimpl
def lmflow_register_benchmarks() -> Iterable[BenchmarkSpec]:
    """Offer the share of pairs in order."""
    yield BenchmarkSpec(
        name="pairwise-accuracy",
        target="lmflow_reward.pairwise:PairwiseAccuracy",
        summary="How often the better of two answers is found.",
        examples=("preference",),
        tasks=("causal", "regression"),
    )
