"""Answers to prompts of tokens, for benchmarks: by the decoder that a model is used with when none is chosen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from lmflow_core.config.request import Component
from lmflow_core.contracts.decoder import Decoder, DecoderSpec, DecodingRequest
from lmflow_core.contracts.generation import GeneratedAnswer
from lmflow_core.generation.answers import own_stops
from lmflow_core.generation.many import generated_answers
from lmflow_core.generation.second_models import Models
from lmflow_core.models.opening import OpenModel
from lmflow_core.plugins.registry import Catalogue
from lmflow_core.workflows.batch import derived_seed


class DecoderAnswers:
    """Satisfies ``PromptAnswers``.

    Args:
        opened: the model; its weights are loaded before the first answer.
        catalogue: the components there are.
    """

    def __init__(self, opened: OpenModel, catalogue: Catalogue) -> None:
        self._opened = opened
        self._catalogue = catalogue

    def __call__(
        self,
        prompts: Sequence[Sequence[int]],
        *,
        max_new_tokens: int,
        stops: Sequence[str] = (),
        seed: int = 42,
        options: Mapping[str, object] | None = None,
    ) -> list[GeneratedAnswer]:
        """Return an answer to each prompt.

        Raises:
            PromptTooLongError: a prompt leaves no room in the context for a token.
            LmflowError: the decoder has no such option, or cannot drive the model.
        """
        model, name = self._opened.model, self._opened.decoder
        provided = self._catalogue.of(DecoderSpec).find(name)
        spec = provided.spec
        chosen = Component(name, provided, spec.options() if spec.options else None).changed(options or {})
        decoder: Decoder = chosen.make(self._catalogue)
        decoder.prepare(model, Models(self._catalogue, spec.runtime))
        requests = [
            DecodingRequest(list(prompt), max_new_tokens, seed=derived_seed(seed, number))
            for number, prompt in enumerate(prompts)
        ]
        return generated_answers(decoder, spec, model, requests, stops=[*own_stops(None, model.tokenizer), *stops])
