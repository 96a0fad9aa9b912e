"""The rewards that were chosen, as one: each is asked, and the numbers are added up by their weights."""

from __future__ import annotations

import math
import operator
from collections.abc import Mapping, Sequence

from lmflow_core.config.request import Component
from lmflow_core.contracts.examples import Prompt
from lmflow_core.contracts.model import LanguageModel, ModelServices
from lmflow_core.contracts.reward import AnsweredPrompt, Reward
from lmflow_core.errors import PluginError
from lmflow_core.plugins.registry import Catalogue


class Rewards:
    """Rewards with their weights; none of them scores nothing."""

    def __init__(self, components: Sequence[Component], catalogue: Catalogue) -> None:
        """Make what was chosen.

        Raises:
            LmflowError: a plugin is broken, or an option is wrong.
        """
        self._components = components
        self._parts: list[tuple[str, float, Reward]] = [
            (component.name, component.weight, component.make(catalogue)) for component in components
        ]

    def __bool__(self) -> bool:
        """Whether there is any."""
        return bool(self._parts)

    @property
    def maximum(self) -> float | None:
        """The most that an answer can be worth, by weights above 0; None where a reward has no such number."""
        known = [component.provided.spec.maximum for component in self._components]
        if not known or None in known or any(weight <= 0 for _, weight, _ in self._parts):
            return None
        return self.summed({name: [most] for (name, _, _), most in zip(self._parts, known, strict=True)})[0]

    def prepare(self, services: ModelServices, beside: LanguageModel | None) -> None:
        """Get every reward ready; see :class:`lmflow_core.contracts.reward.Reward`."""
        for _, _, reward in self._parts:
            reward.prepare(services, beside)

    def check(self, prompt: Prompt) -> None:
        """Check that answers to a prompt can be scored.

        Raises:
            ValueError: a reward lacks something in its row; the message names both.
        """
        for name, _, reward in self._parts:
            try:
                reward.check(prompt)
            except ValueError as error:
                raise ValueError(f"reward {name}: {error}") from error

    def scores(self, answers: Sequence[AnsweredPrompt]) -> dict[str, list[float]]:
        """Return the numbers of each reward by its name, unweighted.

        Raises:
            PluginError: a reward does not give a number for each answer.
        """
        return {name: _numbers(name, reward, answers) for name, _, reward in self._parts}

    def score(self, answers: Sequence[AnsweredPrompt]) -> list[float]:
        """Return the weighted sum for each answer; NaN where one of its numbers is.

        Raises:
            PluginError: a reward does not give a number for each answer.
        """
        return self.summed(self.scores(answers))

    def summed(self, scores: Mapping[str, Sequence[float]]) -> list[float]:
        """Return the weighted sum for each answer of what :meth:`scores` gave."""
        weights = [weight for _, weight, _ in self._parts]
        return [sum(map(operator.mul, weights, row)) for row in zip(*scores.values(), strict=True)]


def _numbers(name: str, reward: Reward, answers: Sequence[AnsweredPrompt]) -> list[float]:
    numbers = reward.score(answers)
    if len(numbers) != len(answers):
        raise PluginError(f"reward {name}: {len(numbers)} numbers for {len(answers)} answers")
    wrong = next((n for n in numbers if isinstance(n, bool) or not isinstance(n, int | float) or math.isinf(n)), None)
    if wrong is not None:
        raise PluginError(f"reward {name}: a score is {wrong!r}, where a finite number is due, or NaN for none")
    return [float(number) for number in numbers]
