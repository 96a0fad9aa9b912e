"""Declares the rewards."""

from __future__ import annotations

from collections.abc import Iterable

from lmflow_core.api import RewardSpec, hookimpl
from lmflow_reward.rewards.options import (
    ArithmeticOptions,
    ExactOptions,
    JsonSchemaOptions,
    LengthOptions,
    RegexOptions,
)


@hookimpl
def lmflow_register_rewards() -> Iterable[RewardSpec]:
    """Offer the verifiers."""
    yield RewardSpec(
        name="exact",
        target="lmflow_reward.rewards.exact:Exact",
        summary="The answer is one that the row holds.",
        options=ExactOptions,
    )
    yield RewardSpec(
        name="regex",
        target="lmflow_reward.rewards.exact:Regex",
        summary="A regular expression matches the answer.",
        options=RegexOptions,
    )
    yield RewardSpec(
        name="json-schema",
        target="lmflow_reward.rewards.schema:JsonSchema",
        summary="The answer is JSON that a schema allows.",
        options=JsonSchemaOptions,
    )
    yield RewardSpec(
        name="arithmetic",
        target="lmflow_reward.rewards.numbers:Arithmetic",
        summary="The answer comes to the right number.",
        options=ArithmeticOptions,
    )
    yield RewardSpec(
        name="length",
        target="lmflow_reward.rewards.length:Length",
        summary="The answer is as long as it may be.",
        options=LengthOptions,
    )
