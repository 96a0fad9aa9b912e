"""Declares the objective ``raft``."""

from __future__ import annotations

from collections.abc import Iterable

from lmflow_core.api import ObjectiveSpec, hookimpl
from lmflow_raft.options import RaftOptions


@hookimpl
def lmflow_register_objectives() -> Iterable[ObjectiveSpec]:
    """Offer reward-ranked fine-tuning."""
    yield ObjectiveSpec(
        name="raft",
        target="lmflow_raft.objective:RaftObjective",
        summary="Learn from the best of one's own answers (RAFT).",
        examples=("prompt",),
        scores=True,
        options=RaftOptions,
    )
