"""Options of the decoder."""

from __future__ import annotations

from dataclasses import dataclass

from lmflow_core.api import option
from lmflow_transformers.options import SamplingOptions


@dataclass(frozen=True, kw_only=True)
class GuidanceOptions(SamplingOptions):
    """How far answers are pushed from what another prompt would give, beside how they are sampled."""

    guidance_scale: float = option(
        1.5, help="How much the prompt counts: 1 is plain sampling, more follows it closer.", minimum=0
    )
    negative_prompt: str | None = option(
        None, help="Text that answers lead away from, control tokens included; the prompt's last token when left out."
    )
