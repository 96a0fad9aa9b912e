"""Options of the objective ``reward``."""

from __future__ import annotations

from dataclasses import dataclass

from lmflow_core.api import option


@dataclass(frozen=True, kw_only=True)
class RewardOptions:
    """How far the rewards of a pair are to be apart, and what keeps them around zero."""

    reward_margin_scale: float = option(
        1.0, help="How much of a pair's margin, where the data has one, rewards are to be apart.", minimum=0
    )
    reward_centering: float = option(
        0.0, help="Weight of the squared sum of a pair's rewards, which keeps them around zero.", minimum=0
    )
