"""Prompt lookup inside a batch: drafts for each answer where they pay."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from lmflow_core.api import DecodeStep, DecodingRequest
from lmflow_speculative.drafters import LookupDrafter
from lmflow_speculative.options import PromptLookupOptions
from lmflow_speculative.pace import Pace
from lmflow_transformers.api import CausalModel, TokenChooser, few_rows_are_quick


class LookupChooser(TokenChooser):
    """Chooses the tokens of an answer as plain sampling does, several for a pass where what was looked up holds.

    Args:
        model: loaded.
        options: how tokens are sampled and drafted.
        request: what is asked.
    """

    def __init__(self, model: CausalModel, options: PromptLookupOptions, request: DecodingRequest) -> None:
        super().__init__(model, options, request)
        self._drafter = LookupDrafter(options.lookup_ngram)
        self._pace = Pace(options.draft_length, self._drafter.cost, few_rows_are_quick(model.base))
        self._beside = 1

    def draft(self, ids: Sequence[int], most: int, beside: int) -> Sequence[int]:
        """Return what followed the last tokens where they occurred before."""
        self._beside = beside
        length = min(self._pace.length(), most)
        return self._drafter.draft(ids, length).tokens if length else ()

    def choose(self, ids: Sequence[int], draft: Sequence[int], logits: torch.Tensor) -> DecodeStep:
        """Return the next tokens: those of the draft that hold, and one more; a stop comes last."""
        step = super().choose(ids, draft, logits)
        self._pace.tell(step.drafted, step.accepted, self._beside)
        return step
