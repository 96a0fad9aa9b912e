"""A saved reward model at work: numbers for conversations and texts."""

from __future__ import annotations

import math
from collections.abc import Sequence

from lmflow_core.api import Conversation, LanguageModel, ModelServices, Prompted, RequestError, Text
from lmflow_transformers.api import CausalModel


class RewardModel:
    """A reward model from its folder, opened beside another model.

    It is the last model that the services opened, so one that opens others in between opens this one again.
    """

    def __init__(self, reference: str, services: ModelServices, beside: LanguageModel | None) -> None:
        """Open it, with its adapter if it is one, and load its weights.

        Args:
            reference: what ``--model`` takes.
            services: what opens models.
            beside: the model it works beside, if any: it goes to the same device, in the same number format.

        Raises:
            ModelError: the reference names no model.
            RequestError: the model gives no number for a text.
        """
        model = services.open_model(reference, beside)
        if model.plan.task != "regression" or not isinstance(model, CausalModel):
            raise RequestError(f"{reference} is no reward model: lmflow finetune --objective reward trains one")
        model.load()
        self.model = model
        self._services = services

    def score(self, examples: Sequence[Conversation | Prompted | Text]) -> list[float]:
        """Return the reward of each example; several share a pass, and nothing is padded.

        Conversations are rendered by the template that is saved with the model, whole, with their last answer.

        One longer than the model's context has none: it is NaN.

        Raises:
            ValueError: an example does not fit the template.
        """
        if not examples:
            return []
        encoded = [example.sequences[0] for example in self._services.encode_for(self.model, examples)]
        most = math.inf if self.model.context_length is None else self.model.context_length
        fitting = [at for at, sequence in enumerate(encoded) if len(sequence.input_ids) <= most]
        rewards = [math.nan] * len(encoded)
        for at, reward in zip(fitting, self.model.values(encoded[at] for at in fitting), strict=True):
            rewards[at] = reward
        return rewards
