"""Declares the objective ``slic``."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from lmflow_core.api import ObjectiveSpec, hookimpl, option


@dataclass(frozen=True, kw_only=True)
class SlicOptions:
    """How far answers are to be apart, and what keeps the model what it is."""

    slic_margin: float = option(1.0, help="How much likelier the chosen answer is to be, in nats.", above=0)
    slic_regularization: float = option(0.1, help="Weight of the chosen answer's own likelihood.", minimum=0)


@hookimpl
def lmflow_register_objectives() -> Iterable[ObjectiveSpec]:
    """Offer rank calibration."""
    yield ObjectiveSpec(
        name="slic",
        target="lmflow_contrib_slic.objective:SlicObjective",
        summary="Make the chosen of two answers the likelier one.",
        examples=("preference",),
        options=SlicOptions,
    )
