"""The reward ``model``: what a reward model makes of an answer."""

from __future__ import annotations

from collections.abc import Sequence

from lmflow_core.api import (
    AnsweredPrompt,
    Conversation,
    LanguageModel,
    Message,
    ModelServices,
    Prompt,
    RequestError,
)
from lmflow_reward.rewards.options import ModelOptions
from lmflow_reward.scoring import RewardModel


class ModelReward:
    """The number that a reward model, by its own template and vocabulary, gives for a conversation with its answer."""

    def __init__(self, options: ModelOptions | None = None) -> None:
        """Keep which model it is.

        Raises:
            RequestError: none is named.
        """
        if options is None or options.reward_model is None:
            raise RequestError("--reward model needs --reward-model, what lmflow finetune --objective reward wrote")
        self._reference = options.reward_model
        self._model: RewardModel | None = None

    def prepare(self, services: ModelServices, beside: LanguageModel | None) -> None:
        """Open the model.

        Raises:
            LmflowError: it cannot be opened, or is no reward model.
        """
        self._model = RewardModel(self._reference, services, beside)

    def check(self, prompt: Prompt) -> None:
        """Take any prompt."""

    def score(self, answers: Sequence[AnsweredPrompt]) -> list[float]:
        """Return the number for each answer; NaN where it is longer than the model's context."""
        assert self._model is not None, "it is prepared before it scores"
        return self._model.score([_conversation(answered) for answered in answers])


def _conversation(answered: AnsweredPrompt) -> Conversation:
    return Conversation((*answered.prompt.messages, Message("assistant", answered.answer)), answered.prompt.tools)
