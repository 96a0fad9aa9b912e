"""Declares the position scaling ``ntk-mixed``."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from lmflow_core.api import PositionScalingSpec, hookimpl, option


@dataclass(frozen=True, kw_only=True)
class NtkMixedOptions:
    """How the slowing is spread over the frequencies."""

    ntk_mixed_b: float = option(
        0.625, help="0 slows all frequencies alike, 1 by equal steps; the author's value.", minimum=0, maximum=1
    )


@hookimpl
def lmflow_register_position_scalings() -> Iterable[PositionScalingSpec]:
    """Offer the scheme."""
    yield PositionScalingSpec(
        name="ntk-mixed",
        target="lmflow_contrib_ntk_mixed.scheme:ntk_mixed",
        summary="Mixed NTK: every frequency slowed, slow ones most.",
        options=NtkMixedOptions,
    )
