"""What verifiers share: they score one answer at a time and need no model."""

from __future__ import annotations

from collections.abc import Sequence

from lmflow_core.api import AnsweredPrompt, LanguageModel, ModelServices, Prompt


class Verifier:
    """A reward by a rule; a subclass says how one answer is scored, and what of a row it needs."""

    def prepare(self, services: ModelServices, beside: LanguageModel | None) -> None:
        """Need nothing."""

    def check(self, prompt: Prompt) -> None:
        """Take any prompt."""

    def score(self, answers: Sequence[AnsweredPrompt]) -> list[float]:
        """Return a number from 0 to 1 for each answer."""
        return [self.score_one(answer.prompt, answer.answer) for answer in answers]

    def score_one(self, prompt: Prompt, answer: str) -> float:
        """Return the number of one answer."""
        raise NotImplementedError


def row_field(prompt: Prompt, name: str, flag: str) -> object:
    """Return a field of the row that a prompt was read from.

    Raises:
        ValueError: the row lacks it.
    """
    if name not in prompt.fields:
        known = ", ".join(map(repr, prompt.fields)) or "none"
        raise ValueError(f"the row has no field {name!r} (it has {known}); name another with {flag}")
    return prompt.fields[name]
