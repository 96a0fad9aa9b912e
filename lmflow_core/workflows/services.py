"""What the core does for an objective while it trains: other models, encoding, answers, news of other processes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from lmflow_core.config.request import Component
from lmflow_core.contracts.decoder import Decoder, DecoderSpec, DecodingRequest
from lmflow_core.contracts.engine import Engine
from lmflow_core.contracts.examples import Example
from lmflow_core.contracts.generation import GeneratedAnswer
from lmflow_core.contracts.model import LanguageModel
from lmflow_core.contracts.reward import AnsweredPrompt
from lmflow_core.contracts.spec import TORCH
from lmflow_core.contracts.template import Template
from lmflow_core.contracts.tokens import EncodedExample
from lmflow_core.data.encoding import Encoder
from lmflow_core.errors import RequestError
from lmflow_core.generation.answers import own_stops
from lmflow_core.generation.many import generated_answers
from lmflow_core.generation.second_models import Models
from lmflow_core.models.rewards import Rewards
from lmflow_core.plugins.registry import Catalogue


class TrainingServices(Models):
    """Satisfies ``JobServices`` once the data of the run is encoded.

    Attributes:
        template: of the run, bound to its tokenizer; None where the data needs none.
    """

    def __init__(self, catalogue: Catalogue, engine: Engine) -> None:
        super().__init__(catalogue)
        self._engine = engine
        self._encoder: Encoder | None = None
        self._rewards: Rewards | None = None
        self.template: Template | None = None

    def use_template(self, template: Template | None, encoder: Encoder) -> None:
        """Encode and answer from now on as the data of the run is encoded."""
        self.template, self._encoder = template, encoder

    def encode(self, examples: Sequence[Example]) -> list[EncodedExample]:
        """Encode examples as those of the data are, without a length policy.

        Raises:
            ValueError: an example does not fit the template.
        """
        assert self._encoder is not None, "the data of the run is encoded before it trains"
        return self._encoder.encode(examples)

    def generate(
        self,
        model: LanguageModel,
        prompts: Sequence[Sequence[int]],
        *,
        max_new_tokens: int,
        seeds: Sequence[int],
        decoder: str = "sampling",
        options: Mapping[str, object] | None = None,
    ) -> list[GeneratedAnswer]:
        """Return an answer to each prompt; see :class:`lmflow_core.contracts.objective.JobServices`.

        Raises:
            LmflowError: there is no such decoder or option, it cannot drive the model, or a prompt is too long.
        """
        provided = self._catalogue.of(DecoderSpec).find(decoder)
        spec = provided.spec
        if spec.runtime != TORCH:
            raise RequestError(
                f"decoder {decoder!r} drives models that run in {spec.runtime}; the one that trains runs in {TORCH}"
            )
        chosen = Component(decoder, provided, spec.options() if spec.options else None).changed(options or {})
        writer: Decoder = chosen.make(self._catalogue)
        writer.prepare(model, self)
        requests = [
            DecodingRequest(prompt, max_new_tokens, seed=seed) for prompt, seed in zip(prompts, seeds, strict=True)
        ]
        stops = own_stops(self.template, model.tokenizer)
        return generated_answers(writer, spec, model, requests, stops=stops)

    def use_rewards(self, rewards: Rewards, beside: LanguageModel) -> None:
        """Score from now on by these, beside the model that trains."""
        self._rewards = rewards
        rewards.prepare(self, beside)

    def score(self, answers: Sequence[AnsweredPrompt]) -> list[float]:
        """Return the reward of each answer; see :class:`lmflow_core.contracts.objective.JobServices`."""
        assert self._rewards is not None, "an objective that scores says so in its spec"
        return self._rewards.score(answers)

    def all_gather(self, value: object) -> list[Any]:
        """Return what every process of the job passed, in the order of their ranks; all of them call this."""
        return self._engine.all_gather(value)
