"""What all batches that share the passes of a model decide alike: which prompts a pass reads, who waits for whom."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Protocol

from lmflow_core.contracts.decoder import DecodingRequest
from lmflow_core.errors import RequestError

# A few tokens are read again sooner than they are copied, or others made to wait for them.
SHORTEST_BEGINNING = 8
# A prompt that others went before in so many passes goes first.
_PATIENCE = 4


class ReadPrompt(Protocol):
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


def reading_parts(
    prompts: Sequence[ReadPrompt], tokens: int, crossover: float, rooms: Sequence[int] | None = None
) -> list[int]:
    """Return how many tokens of each prompt the next pass reads; 0 for those that wait.

    Those that can be read to their end come first, the shortest before the others, so that a short prompt does not wait
    for a long one. Only where there is none, a longer one gets a part. No prompt is passed over more than a few times.

    Args:
        prompts: those that are being read; ``passed_over`` of each is brought up to date.
        tokens: to read, of prompts at their beginning.
        crossover: see :func:`attention_crossover`. Parts get smaller as a text grows, so that passes take about the
            same time.
        rooms: how many tokens of each may be read at once; None is any number.
    """
    counts = [0] * len(prompts)
    left = float(tokens)
    for at in sorted(range(len(prompts)), key=lambda at: (prompts[at].passed_over < _PATIENCE, prompts[at].unread)):
        prompt = prompts[at]
        price = 1 + prompt.seen / crossover
        affordable = max(1, int(left / price))
        if rooms is not None:
            affordable = min(rooms[at], affordable)
        if left <= 0 or (affordable < prompt.unread and any(counts)):
            continue
        counts[at] = min(affordable, prompt.unread)
        left -= counts[at] * price
    for prompt, count in zip(prompts, counts, strict=True):
        prompt.passed_over = 0 if count else prompt.passed_over + 1
    return counts


def attention_crossover(weights: int, layers: int, width: int) -> float:
    """Return behind how many tokens attention to them takes as long as the rest of a model, by their products.

    Args:
        weights: that each token is multiplied with.
        layers: of attention.
        width: of a token's state.
    """
    return max(1.0, weights / (2 * layers * width))


def common_beginning(ids: Any, other: Any) -> int:
    """Return how many tokens two texts, arrays of ids, begin with alike."""
    length = min(len(ids), len(other))
    differs = (ids[:length] != other[:length]).nonzero()[0]
    return int(differs[0]) if len(differs) else length


def is_read_soon(prompt: Any, known: int, others: Iterable[tuple[Any, int]]) -> bool:
    """Whether another prompt that is being read begins with more of this one than was read.

    Args:
        prompt: an array of ids.
        known: how many of its tokens were read already, as the beginning of another text.
        others: the prompts that are being read, and how many tokens of each were.
    """
    return any(common_beginning(prompt[:-1], other) >= max(known, seen) + SHORTEST_BEGINNING for other, seen in others)


def check_cache(request: DecodingRequest, needed: int, cache_tokens: int) -> None:
    """Check that a prompt and its longest answer, which need a cache of so many tokens, fit the one there is.

    Raises:
        RequestError: they do not, however long one waits.
    """
    if needed > cache_tokens:
        prompt, most = len(request.prompt), request.max_new_tokens
        raise RequestError(
            f"the prompt of {prompt} tokens and an answer of up to {most} need a cache of {needed} tokens, and it "
            f"holds {cache_tokens}: ask for a shorter answer, or make the cache larger"
        )
