"""Declares what this plugin offers; everything heavy is behind a target."""

from __future__ import annotations

from collections.abc import Iterable

from lmflow_core.api import DecoderSpec, hookimpl
from lmflow_speculative.options import DraftModelOptions, PromptLookupOptions, SelfSpeculativeOptions


@hookimpl
def lmflow_register_decoders() -> Iterable[DecoderSpec]:
    """Offer three ways to draft."""
    yield DecoderSpec(
        name="prompt-lookup",
        target="lmflow_speculative.decoders:PromptLookupDecoder",
        summary="Drafts looked up in the text so far; no second model.",
        options=PromptLookupOptions,
    )
    yield DecoderSpec(
        name="speculative",
        target="lmflow_speculative.decoders:DraftModelDecoder",
        summary="Drafts of a smaller model, checked by the large one.",
        options=DraftModelOptions,
    )
    yield DecoderSpec(
        name="self-speculative",
        target="lmflow_speculative.decoders:SelfSpeculativeDecoder",
        summary="Drafts of the model's own first layers.",
        options=SelfSpeculativeOptions,
    )
