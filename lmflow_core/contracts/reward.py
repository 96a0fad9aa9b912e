"""Rewards: how good an answer to a prompt is, as a number."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Protocol

from lmflow_core.contracts.examples import Prompt
from lmflow_core.contracts.model import LanguageModel, ModelServices
from lmflow_core.contracts.spec import Selector, Spec
from lmflow_core.errors import SpecError


@dataclass(frozen=True)
class AnsweredPrompt:
    """A prompt with the fields of its row, and an answer to it, without the token that ended it."""

    prompt: Prompt
    answer: str


class Reward(Protocol):
    """Target of a ``RewardSpec``."""

    def prepare(self, services: ModelServices, beside: LanguageModel | None) -> None:
        """Get ready to score, once, before anything is scored.

        Args:
            services: what the core does for components that work with a second model.
            beside: the model whose answers are scored, where there is one: a second model goes where it is.

        Raises:
            LmflowError: a model that judges cannot be used.
        """

    def check(self, prompt: Prompt) -> None:
        """Check that answers to a prompt can be scored; called for each before any work.

        Raises:
            ValueError: the row lacks a field that the reward needs, or has something else there; the message names it.
        """

    def score(self, answers: Sequence[AnsweredPrompt]) -> Sequence[float]:
        """Return a number for each answer, the higher the better. It depends on no other answer.

        An answer that cannot be scored, such as one too long for a model that judges, is NaN: counted, and left out.
        """


@dataclass(frozen=True, kw_only=True)
class RewardSpec(Spec):
    """A measure of answers; ``target(options)`` satisfies ``Reward``.

    Attributes:
        ``maximum``: the most that an answer can be worth, where there is such a number.

    Example::

        @hookimpl
        def lmflow_register_rewards():
            yield RewardSpec(name="brief", target="lmflow_brief.reward:Brief", summary="Fewer words are better.")
    """

    kind: ClassVar[str] = "reward"
    contract: ClassVar[type | None] = Reward
    selector: ClassVar[Selector | None] = Selector(
        "reward",
        "What answers are scored by; several with commas, weighted as in json-schema,length=0.1.",
        {"finetune": None, "data score": None, "evaluate": None, "evaluate --reward": None},
        weighted=True,
    )
    maximum: float | None = None

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            SpecError: one cannot be used.
        """
        super().__post_init__()
        if self.maximum is not None and not math.isfinite(self.maximum):
            raise SpecError(f"the maximum of reward {self.name!r} is {self.maximum}, where a number is due, or None")
