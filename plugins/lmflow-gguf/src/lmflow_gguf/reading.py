"""Which prompts a pass reads, and how much of each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from lmflow_gguf.runtime import Weights, library

# A prompt that others went before in so many passes goes first.
_PATIENCE = 4


class Reading(Protocol):
    """A prompt that is being read.

    Attributes:
        seen: how many of its tokens were read.
        passed_over: passes since it got its last part.
    """

    seen: int
    passed_over: int

    @property
    def unread(self) -> int:
        """How many of its tokens are left."""


def parts(prompts: Sequence[Reading], tokens: int, crossover: float) -> list[int]:
    """Return how many tokens of each prompt the next pass reads; 0 for those that wait.

    Those that can be read to their end come first, the shortest before the others, so that a short prompt does not wait
    for a long one. Only where there is none, a longer one gets a part. No prompt is passed over more than a few times.

    Args:
        prompts: those that are being read.
        tokens: to read, of prompts at their beginning.
        crossover: behind how many tokens of a text attention to them takes as long as the rest of the model. Parts get
            smaller as a text grows, so that passes take about the same time.
    """
    counts = [0] * len(prompts)
    left = float(tokens)
    for at in sorted(range(len(prompts)), key=lambda at: (prompts[at].passed_over < _PATIENCE, prompts[at].unread)):
        prompt = prompts[at]
        price = 1 + prompt.seen / crossover
        affordable = max(1, int(left / price))
        if left <= 0 or (affordable < prompt.unread and any(counts)):
            continue
        counts[at] = min(affordable, prompt.unread)
        left -= counts[at] * price
    for prompt, count in zip(prompts, counts, strict=True):
        prompt.passed_over = 0 if count else prompt.passed_over + 1
    return counts


def attention_crossover(weights: Weights) -> float:
    """Return behind how many tokens attention to them takes as long as the rest of a model, by their products."""
    lib, model = library(), weights.handle
    width = lib.llama_model_n_embd(model)
    multiplied = lib.llama_model_n_params(model) - weights.size * width
    return float(max(1.0, multiplied / (2 * lib.llama_model_n_layer(model) * width)))
