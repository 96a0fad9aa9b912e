"""Declares the template ``tulu3``."""

from __future__ import annotations

from collections.abc import Iterable

from lmflow_core.api import TemplateSpec, hookimpl


@hookimpl
def lmflow_register_templates() -> Iterable[TemplateSpec]:
    """Offer the template."""
    yield TemplateSpec(
        name="tulu3",
        aliases=("olmo2",),
        target="lmflow_contrib_tulu.template:TULU3",
        models="Tulu 3, OLMo 2",
        summary="Role tags; the end token behind answers alone.",
    )
