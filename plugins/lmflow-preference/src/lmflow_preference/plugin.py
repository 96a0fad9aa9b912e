"""Declares the objectives ``dpo``, ``iterative-dpo`` and ``kto``."""

from __future__ import annotations

from collections.abc import Iterable

from lmflow_core.api import ObjectiveSpec, hookimpl
from lmflow_preference.options import DpoOptions, IterativeDpoOptions, KtoOptions


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
        name="iterative-dpo",
        target="lmflow_preference.iterative:IterativeDpoObjective",
        summary="Learn in rounds which of one's own answers are better.",
        examples=("prompt",),
        scores=True,
        options=IterativeDpoOptions,
    )
    yield ObjectiveSpec(
        name="kto",
        target="lmflow_preference.kto:KtoObjective",
        summary="Learn from answers that were found good or bad.",
        examples=("judged",),
        options=KtoOptions,
    )
