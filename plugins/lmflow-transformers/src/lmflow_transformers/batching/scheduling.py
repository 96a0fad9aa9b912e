"""Which prompts a pass reads, and how much of each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from lmflow_transformers.models import CausalModel

# A prompt that others went before in so many passes goes first.
_PATIENCE = 4


class Reading(Protocol):
    """A prompt that is being read.

    Attributes:
        passed_over: passes since it got its last part.
    """

    passed_over: int

    @property
    def seen(self) -> int:
        """How many of its tokens were read."""

    @property
    def unread(self) -> int:
        """How many are left."""

    def room(self) -> int:
        """Return how many tokens the next pass may read."""


class ReadingPlan:
    """Shares the tokens of a pass among prompts.

    Those that can be read to their end come first, the shortest before the others, so that a short prompt does not wait
    for a long one. Only where there is none, a longer one gets a part. No prompt is passed over more than a few times.

    Args:
        tokens: to read in a pass, of prompts at their beginning.
        crossover: behind how many tokens of a text attention to them takes as long as the rest of the model. Parts get
            smaller as a text grows, so that passes take about the same time.
    """

    def __init__(self, tokens: int, crossover: float) -> None:
        self._tokens = tokens
        self._crossover = crossover

    def parts(self, prompts: Sequence[Reading]) -> list[int]:
        """Return how many tokens of each prompt the next pass reads; 0 for those that wait."""
        counts = [0] * len(prompts)
        left = float(self._tokens)
        for at in sorted(range(len(prompts)), key=lambda at: (prompts[at].passed_over < _PATIENCE, prompts[at].unread)):
            prompt = prompts[at]
            price = 1 + prompt.seen / self._crossover
            affordable = min(prompt.room(), max(1, int(left / price)))
            if left <= 0 or (affordable < prompt.unread and any(counts)):
                continue
            counts[at] = min(affordable, prompt.unread)
            left -= counts[at] * price
        for prompt, count in zip(prompts, counts, strict=True):
            prompt.passed_over = 0 if count else prompt.passed_over + 1
        return counts


def attention_crossover(model: CausalModel) -> float:
    """Return behind how many tokens attention to them takes as long as the rest of a model, by their products."""
    text = model.base.config.get_text_config()
    embedded = {id(parameter) for parameter in model.base.get_input_embeddings().parameters()}
    weights = sum(parameter.numel() for parameter in model.base.parameters() if id(parameter) not in embedded)
    attended = 2 * text.num_hidden_layers * text.hidden_size
    return max(1.0, weights / attended)
