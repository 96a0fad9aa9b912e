"""Declares the decoder ``cfg``."""

from __future__ import annotations

from collections.abc import Iterable

from lmflow_contrib_cfg.options import GuidanceOptions
from lmflow_core.api import DecoderSpec, hookimpl


@hookimpl
def lmflow_register_decoders() -> Iterable[DecoderSpec]:
    """Offer the decoder."""
    yield DecoderSpec(
        name="cfg",
        target="lmflow_contrib_cfg.decoder:GuidedDecoder",
        summary="Classifier-free guidance: what the prompt adds counts more.",
        options=GuidanceOptions,
        batches=True,
    )
