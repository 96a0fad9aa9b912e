"""Options of the decoders. No torch here: flags are read before anything heavy loads."""

from __future__ import annotations

from dataclasses import dataclass

from lmflow_core.api import option
from lmflow_transformers.options import SamplingOptions


@dataclass(frozen=True, kw_only=True)
class DraftingOptions(SamplingOptions):
    """How the next token is sampled, as by the decoder ``sampling``, and how many are drafted."""

    draft_length: int = option(8, help="The most tokens that are drafted at a time.", minimum=1, maximum=64)


@dataclass(frozen=True, kw_only=True)
class PromptLookupOptions(DraftingOptions):
    """Options of prompt lookup."""

    lookup_ngram: int = option(3, help="The most last tokens that are looked up in the text so far.", minimum=2)


@dataclass(frozen=True, kw_only=True)
class DraftModelOptions(DraftingOptions):
    """Options of decoding with a draft model."""

    draft_model: str | None = option(
        None, help="The model that drafts, needed: whatever --model takes; same vocabulary."
    )


@dataclass(frozen=True, kw_only=True)
class DistillationOptions:
    """Options of learning another model's distribution."""

    teacher: str | None = option(
        None,
        help="The model to learn from: whatever --model takes; same vocabulary. "
        "With --tuner draft it is the model itself when left out.",
    )
    loss_chunk: int = option(256, help="Labelled positions that pass through the output heads at a time.", minimum=1)


@dataclass(frozen=True, kw_only=True)
class DraftOptions:
    """Options of cutting a model down to a draft model."""

    draft_layers: int | None = option(None, help="Layers the draft model keeps; a tenth by default.", minimum=1)
    draft_layers_from: str = option(
        "first", help="Which layers those are: the first, or some spread evenly.", choices=("first", "spread")
    )
    draft_vocabulary: int | None = option(
        None, help="Let it draft only this many tokens, the most frequent of the data; all when left out.", minimum=1
    )


@dataclass(frozen=True, kw_only=True)
class SelfSpeculativeOptions(DraftingOptions):
    """Options of decoding with drafts of the model's own first layers."""

    draft_layers: int | None = option(None, help="Layers that draft, from the first; a third by default.", minimum=1)
