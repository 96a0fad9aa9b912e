"""Declares what this plugin offers; everything heavy is behind a target."""

from __future__ import annotations

from collections.abc import Iterable

from lmflow_core.api import CommandSpec, DecoderSpec, ObjectiveSpec, TunerSpec, hookimpl
from lmflow_speculative.options import (
    DistillationOptions,
    DraftModelOptions,
    DraftOptions,
    PromptLookupOptions,
    SelfSpeculativeOptions,
)


@hookimpl
def lmflow_register_decoders() -> Iterable[DecoderSpec]:
    """Offer three ways to draft."""
    yield DecoderSpec(
        name="prompt-lookup",
        target="lmflow_speculative.decoders:PromptLookupDecoder",
        summary="Drafts looked up in the text so far; no second model.",
        options=PromptLookupOptions,
        batches=True,
        exact=True,
    )
    yield DecoderSpec(
        name="speculative",
        target="lmflow_speculative.decoders:DraftModelDecoder",
        summary="Drafts of a smaller model, checked by the large one.",
        options=DraftModelOptions,
        exact=True,
    )
    yield DecoderSpec(
        name="self-speculative",
        target="lmflow_speculative.decoders:SelfSpeculativeDecoder",
        summary="Drafts of the model's own first layers.",
        options=SelfSpeculativeOptions,
        exact=True,
    )


@hookimpl
def lmflow_register_objectives() -> Iterable[ObjectiveSpec]:
    """Offer distillation."""
    yield ObjectiveSpec(
        name="distillation",
        target="lmflow_speculative.distillation:DistillationObjective",
        summary="Learn the distribution of another model.",
        examples=("text", "prompted", "conversation"),
        options=DistillationOptions,
    )


@hookimpl
def lmflow_register_tuners() -> Iterable[TunerSpec]:
    """Offer to train a few layers of a model as a smaller one."""
    yield TunerSpec(
        name="draft",
        target="lmflow_speculative.draft_tuner:DraftTuner",
        summary="Keep a few layers and train those: a draft model.",
        options=DraftOptions,
        learning_rate=1e-3,
    )


@hookimpl
def lmflow_register_commands() -> Iterable[CommandSpec]:
    """Offer to make a draft model."""
    yield CommandSpec(
        name="distill-draft",
        target="lmflow_speculative.distill_draft:DISTILL_DRAFT",
        summary="Make a small model that drafts for --decoder speculative.",
        finetunes=True,
    )
