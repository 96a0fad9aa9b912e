"""Declares the objectives of reward models, the benchmark ``pairwise-accuracy`` and the rewards."""

from __future__ import annotations

from collections.abc import Iterable

from lmflow_core.api import BenchmarkSpec, ObjectiveSpec, RewardSpec, hookimpl
from lmflow_reward.options import RewardOptions
from lmflow_reward.rewards.options import (
    ArithmeticOptions,
    ExactOptions,
    JsonSchemaOptions,
    LengthOptions,
    ModelOptions,
    RegexOptions,
)


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


@hookimpl
def lmflow_register_rewards() -> Iterable[RewardSpec]:
    """Offer reward models and verifiers."""
    yield RewardSpec(
        name="model",
        target="lmflow_reward.rewards.model:ModelReward",
        summary="What a reward model makes of the answer.",
        options=ModelOptions,
    )
    yield RewardSpec(
        name="exact",
        target="lmflow_reward.rewards.exact:Exact",
        summary="The answer is one that the row holds.",
        options=ExactOptions,
        maximum=1.0,
    )
    yield RewardSpec(
        name="regex",
        target="lmflow_reward.rewards.exact:Regex",
        summary="A regular expression matches the answer.",
        options=RegexOptions,
        maximum=1.0,
    )
    yield RewardSpec(
        name="json-schema",
        target="lmflow_reward.rewards.schema:JsonSchema",
        summary="The answer is JSON that a schema allows.",
        options=JsonSchemaOptions,
        maximum=1.0,
    )
    yield RewardSpec(
        name="arithmetic",
        target="lmflow_reward.rewards.numbers:Arithmetic",
        summary="The answer comes to the right number.",
        options=ArithmeticOptions,
        maximum=1.0,
    )
    yield RewardSpec(
        name="length",
        target="lmflow_reward.rewards.length:Length",
        summary="The answer is as long as it may be.",
        options=LengthOptions,
        maximum=1.0,
    )
