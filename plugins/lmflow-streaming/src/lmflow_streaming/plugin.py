"""Declares what this plugin offers; everything heavy is behind a target."""

from __future__ import annotations

from collections.abc import Iterable

from lmflow_core.api import DecoderSpec, hookimpl
from lmflow_streaming.options import StreamingOptions


@hookimpl
def lmflow_register_decoders() -> Iterable[DecoderSpec]:
    """Offer sampling that sees the first tokens and the last ones."""
    yield DecoderSpec(
        name="streaming",
        target="lmflow_streaming.decoder:StreamingDecoder",
        summary="Beyond the context: first and last tokens in a window.",
        options=StreamingOptions,
        unbounded=True,
        batches=True,
        exact=True,
    )
