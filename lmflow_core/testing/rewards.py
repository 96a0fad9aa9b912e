"""A reward for tests of objectives that score answers of their own."""

from __future__ import annotations

from collections.abc import Sequence

from lmflow_core.contracts.reward import AnsweredPrompt


class Vowels:
    """Scores answers, in the place of what ``--reward`` would choose: 1 for those with a vowel, 0 for the others."""

    def prepare(self, services: object, beside: object) -> None:
        """Need nothing."""

    def score(self, answers: Sequence[AnsweredPrompt]) -> list[float]:
        """Return a number for each answer."""
        return [float(not set("aeiou").isdisjoint(answer.answer)) for answer in answers]
