"""What a draft is and what makes one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch


@dataclass(frozen=True)
class Draft:
    """Tokens proposed to follow a text.

    Attributes:
        tokens: the ids, at most as many as were asked for.
        probabilities: (len(tokens), vocabulary), float32: the distribution each token was sampled from; None when
            the tokens were not sampled at random.
    """

    tokens: list[int]
    probabilities: torch.Tensor | None = None


class Drafter(Protocol):
    """Proposes tokens for one answer; it may keep a cache of the text it has seen.

    Attributes:
        cost: of one drafted token, in passes of the model that checks it. Drafting rests where it costs more than it
            gains.
    """

    cost: float

    def draft(self, ids: Sequence[int], length: int) -> Draft:
        """Return up to ``length`` tokens to follow a text.

        Args:
            ids: the text, which begins with that of the call before (and holds of its draft what was kept).
            length: the most tokens to return, at least one.
        """
