"""Declares the objective ``rloo``."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from lmflow_core.api import ObjectiveSpec, hookimpl, option


@dataclass(frozen=True, kw_only=True)
class RlooOptions:
    """What is sampled."""

    rloo_samples: int = option(4, help="Answers to each prompt.", minimum=2)
    rloo_max_new_tokens: int = option(64, help="Longest answer in tokens.", minimum=1)


@hookimpl
def lmflow_register_objectives() -> Iterable[ObjectiveSpec]:
    """Offer REINFORCE leave-one-out."""
    yield ObjectiveSpec(
        name="rloo",
        target="lmflow_contrib_rloo.objective:RlooObjective",
        summary="Make rewarded answers likelier than their siblings.",
        examples=("prompt",),
        scores=True,
        options=RlooOptions,
    )
