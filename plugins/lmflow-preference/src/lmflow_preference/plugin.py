"""Declares the objectives ``dpo`` and ``kto``."""

from __future__ import annotations

from collections.abc import Iterable

from lmflow_core.api import ObjectiveSpec, hookimpl
from lmflow_preference.options import DpoOptions, KtoOptions


@hookimpl
def lmflow_register_objectives() -> Iterable[ObjectiveSpec]:
    """Offer learning from pairs, and from verdicts."""
    yield ObjectiveSpec(
        name="dpo",
        target="lmflow_preference.dpo:DpoObjective",
        summary="Learn from pairs of answers: DPO, IPO, SimPO, ORPO, ….",
        examples=("preference", "candidates"),
        options=DpoOptions,
    )
    yield ObjectiveSpec(
        name="kto",
        target="lmflow_preference.kto:KtoObjective",
        summary="Learn from answers that were found good or bad.",
        examples=("judged",),
        options=KtoOptions,
    )
