"""A network that remembers the text it has seen, and forgets the end of it when that turns out otherwise."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from transformers import DynamicCache

from lmflow_transformers.api import for_decoding


class CachedNetwork:
    """A transformers model with the keys and values of one text.

    Args:
        network: what is called, perhaps wrapped by an adapter.
        device: where it is.
    """

    def __init__(self, network: Any, device: torch.device) -> None:
        self._network = network
        self._device = device
        # Without a configuration every layer keeps all it saw. One with a sliding window masks what it cannot see,
        # and so it can go back as far as a draft was wrong.
        self._cache = DynamicCache()
        self._arguments = for_decoding(network, self._cache)
        self._seen: list[int] = []

    def logits(self, ids: Sequence[int], count: int) -> torch.Tensor:
        """Return the logits (count, vocabulary) behind each of the last ``count`` ids of a text.

        What the text shares with the one before is not evaluated again.
        """
        kept = min(self._shared(ids), len(ids) - count)
        if kept < len(self._seen):
            self._cache.crop(kept - len(self._seen))
        fresh = torch.tensor([list(ids[kept:])], device=self._device)
        output = self._network(input_ids=fresh, logits_to_keep=count, **self._arguments)
        self._seen = list(ids)
        logits: torch.Tensor = output.logits[0]
        return logits

    def _shared(self, ids: Sequence[int]) -> int:
        """Return how many first ids of the text were seen. The search is from the end, where alone they may differ."""
        length = min(len(ids), len(self._seen))
        while length and list(ids[:length]) != self._seen[:length]:
            length -= 1
        return length
