"""The reward ``length``: an answer that is as long as it may be."""

from __future__ import annotations

from lmflow_core.api import Prompt
from lmflow_reward.rewards.base import Verifier
from lmflow_reward.rewards.options import LengthOptions


class Length(Verifier):
    """1 within the bounds; outside of them it falls in proportion, to 0 for an empty answer or one twice too long."""

    def __init__(self, options: LengthOptions | None = None) -> None:
        self._options = options or LengthOptions()

    def score_one(self, prompt: Prompt, answer: str) -> float:
        """Measure an answer."""
        options = self._options
        length = len(answer.split()) if options.length_unit == "words" else len(answer)
        if length < options.length_least:
            return length / options.length_least
        return max(0.0, 1.0 - max(0, length - options.length_most) / options.length_most)
