"""Plain decoding of several prompts at once: padded on the left, each with a seed and an end of its own."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from transformers import DynamicCache

from lmflow_core.api import DecodingRequest
from lmflow_transformers.attention import takes_attention_mask
from lmflow_transformers.caching import for_decoding
from lmflow_transformers.models import CausalModel
from lmflow_transformers.rotary import follows_length


@dataclass
class Row:
    """One answer of a batch.

    Attributes:
        place: of its request among all.
        request: what is asked.
        ids: the prompt and the answer so far.
        generator: of its random choices.
    """

    place: int
    request: DecodingRequest
    ids: list[int]
    generator: torch.Generator

    @property
    def finished(self) -> bool:
        """Whether the answer has all its tokens: the last is a stop, or it is as long as it may be."""
        written = len(self.ids) - len(self.request.prompt)
        return written >= self.request.max_new_tokens or (written > 0 and self.ids[-1] in self.request.stop_ids)


def batches_apply(model: CausalModel) -> bool:
    """Whether a prompt's answer does not depend on the others beside it.

    Positions are told, and not by the longest prompt, and what pads the others can be masked.
    """
    if not takes_attention_mask(model.base):
        return False
    told = "position_ids" in inspect.signature(model.base.forward).parameters
    return told and not follows_length(model.base.config) and not getattr(model.base, "_is_stateful", False)


def rows_of(requests: Sequence[DecodingRequest], device: torch.device) -> list[Row]:
    """Return a row for each request, in their order."""
    return [
        Row(place, request, list(request.prompt), torch.Generator(device).manual_seed(request.seed))
        for place, request in enumerate(requests)
    ]


class Batch:
    """The rows that are being written, with their keys and values."""

    def __init__(self, model: CausalModel, rows: Sequence[Row]) -> None:
        self._model = model
        self.rows = list(rows)
        self._cache = DynamicCache(config=model.base.config)
        self._arguments = for_decoding(model.network, self._cache)
        longest = max(len(row.ids) for row in rows)
        self._mask = torch.tensor([[0] * (longest - len(row.ids)) + [1] * len(row.ids) for row in rows])
        self._mask = self._mask.to(model.device)
        self._started = False

    def logits(self) -> torch.Tensor:
        """Return the logits (rows, vocabulary), float32, of the next token of each row."""
        if self._started:
            fresh = torch.tensor([row.ids[-1:] for row in self.rows], device=self._model.device)
            self._mask = torch.nn.functional.pad(self._mask, (0, 1), value=1)
        else:
            width = self._mask.shape[1]
            padded = [[0] * (width - len(row.ids)) + row.ids for row in self.rows]
            fresh = torch.tensor(padded, device=self._model.device)
        positions = (self._mask.cumsum(1) - 1).clamp(min=0)[:, -fresh.shape[1] :]
        self._started = True
        output = self._model.network(
            input_ids=fresh,
            attention_mask=self._mask,
            position_ids=positions,
            logits_to_keep=1,
            **self._arguments,
        )
        logits: torch.Tensor = output.logits[:, -1].float()
        return logits

    def keep(self, unfinished: Sequence[bool]) -> None:
        """Go on with the rows that are not finished."""
        if all(unfinished):
            return
        places = [place for place, goes_on in enumerate(unfinished) if goes_on]
        self.rows = [self.rows[place] for place in places]
        if not places:
            return
        kept = torch.tensor(places, device=self._model.device)
        self._mask = self._mask[kept]
        self._cache.batch_select_indices(kept)
