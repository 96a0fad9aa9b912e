"""Three drafters: one looks the text up, two ask a network."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from lmflow_speculative.caching import CachedNetwork
from lmflow_speculative.drafts import Draft
from lmflow_speculative.sampling_rule import SamplingRule

_SHORTEST_NGRAM = 2


class LookupDrafter:
    """Proposes what followed the last tokens where they occurred before, the longest and latest such place.

    Prompt lookup decoding, after Saxena's of 2023. A text that repeats itself is continued round and round.
    """

    cost = 0.0

    def __init__(self, longest: int) -> None:
        self._sizes = range(longest, _SHORTEST_NGRAM - 1, -1)
        self._behind: dict[tuple[int, ...], int] = {}
        self._indexed = 0

    def draft(self, ids: Sequence[int], length: int) -> Draft:
        """Return what followed, or no token."""
        self._index(ids)
        for size in self._sizes:
            start = self._behind.get(tuple(ids[-size:]))
            if start is not None:
                text = ids[start:]
                return Draft([text[place % len(text)] for place in range(length)])
        return Draft([])

    def _index(self, ids: Sequence[int]) -> None:
        """Note for each run of tokens where its continuation begins; the last run has none yet."""
        for end in range(self._indexed + 1, len(ids)):
            for size in self._sizes:
                if size <= end:
                    self._behind[tuple(ids[end - size : end])] = end
        self._indexed = len(ids) - 1


class NetworkDrafter:
    """Samples a draft token by token from a network, by the options of the answer itself.

    Args:
        network: the network that drafts.
        rule: how tokens are sampled.
        vocabulary: number of tokens of the model that checks; logits of the network are cut or filled up to it.
        cost: see :class:`~lmflow_speculative.drafts.Drafter`.
        tokens: the ids that the logits of the network are for, in their order; None when they are for all.
    """

    def __init__(
        self,
        network: CachedNetwork,
        rule: SamplingRule,
        vocabulary: int,
        cost: float,
        tokens: Sequence[int] | None = None,
    ) -> None:
        self.cost = cost
        self._network = network
        self._rule = rule
        self._vocabulary = vocabulary
        self._tokens = None if tokens is None else torch.tensor(tokens)

    def draft(self, ids: Sequence[int], length: int) -> Draft:
        """Return exactly ``length`` tokens with their distributions."""
        text = list(ids)
        rows = []
        for _ in range(length):
            logits = self._fitted(self._network.logits(text, 1)[0].float())
            rows.append(self._rule.distribution(torch.tensor(text, device=logits.device), logits))
            text.append(self._rule.sample(rows[-1]))
        return Draft(text[len(ids) :], torch.stack(rows))

    def _fitted(self, logits: torch.Tensor) -> torch.Tensor:
        """Return logits for exactly the model's tokens: many models have rows that stand for no token."""
        if self._tokens is not None:
            all_tokens = logits.new_full((self._vocabulary,), float("-inf"))
            return all_tokens.index_copy_(0, self._tokens.to(logits.device), logits)
        missing = max(self._vocabulary - len(logits), 0)
        return torch.nn.functional.pad(logits[: self._vocabulary], (0, missing), value=float("-inf"))
