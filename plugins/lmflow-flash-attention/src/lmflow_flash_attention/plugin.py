"""Declares flash attention."""

from __future__ import annotations

from collections.abc import Iterable

from lmflow_core.api import AttentionSpec, hookimpl


@hookimpl
def lmflow_register_attentions() -> Iterable[AttentionSpec]:
    """Offer flash attention."""
    yield AttentionSpec(
        name="flash",
        target="lmflow_flash_attention.attention:FlashAttention",
        summary="Flash attention or nothing: never a quadratic fall-back.",
    )
