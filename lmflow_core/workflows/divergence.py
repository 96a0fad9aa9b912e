"""How far a model is from another, by the answers it gives."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from lmflow_core.config.request import Component
from lmflow_core.contracts.decoder import DecoderSpec
from lmflow_core.contracts.model import LanguageModel, ModelServices
from lmflow_core.contracts.tokens import IGNORE, EncodedSequence
from lmflow_core.errors import ModelError
from lmflow_core.models.tasks import check_predicts
from lmflow_core.report import console
from lmflow_core.workflows.answer_figures import ScoredAnswer

# What leaves a model's own distribution as it is, of the options that decoders share.
_PLAIN = {
    "temperature": 1.0,
    "top_k": 0,
    "top_p": 1.0,
    "min_p": 0.0,
    "repetition_penalty": 1.0,
    "logit_bias": (),
    "json_schema": None,
}


def is_plain(decoding: Component) -> bool:
    """Whether a decoder samples by the model's own distribution, so that mean log-ratios estimate a divergence."""
    spec: DecoderSpec = decoding.provided.spec
    return spec.exact and all(getattr(decoding.options, name, value) == value for name, value in _PLAIN.items())


class Reference:
    """A second model that answers are compared by; it gives its memory back when it goes."""

    def __init__(self, reference: str, model: LanguageModel, services: ModelServices) -> None:
        """Open it, without its weights.

        Raises:
            LmflowError: it cannot be opened, gives no probabilities, or has other control tokens.
        """
        self._model = model
        self._other = services.open_model(reference, beside=model)
        check_predicts(self._other, "--reference-model")
        if self._other.tokenizer.control_tokens != model.tokenizer.control_tokens:
            raise self._misfit()

    def check(self, sequences: Sequence[Sequence[int]]) -> None:
        """Check that some ids mean to it what they mean to the model.

        Raises:
            ModelError: they do not.
        """
        if any(self._model.tokenizer.decode(ids) != self._other.tokenizer.decode(ids) for ids in sequences):
            raise self._misfit()

    def measure(self, answers: Sequence[ScoredAnswer]) -> None:
        """Give each answer its log-probabilities, by the model and by the reference.

        Raises:
            ModelError: an answer has ids that mean something else to the reference, or its weights cannot be read.
        """
        self.check([answer.written.ids for answer in answers])
        own = [*_logprobs(self._model, answers, "Measuring")]
        self._other.load()
        theirs = _logprobs(self._other, answers, "Measuring the reference")
        for answer, pair in zip(answers, zip(own, theirs, strict=True), strict=True):
            answer.logprobs = pair

    def _misfit(self) -> ModelError:
        return ModelError(
            f"--reference-model {self._other.reference} reads ids of tokens otherwise than {self._model.reference}: "
            "choose one with the tokenizer of the model"
        )


def _logprobs(model: LanguageModel, answers: Sequence[ScoredAnswer], told: str) -> Iterator[float]:
    scores = model.score(_sequence(answer) for answer in answers)
    return (-score.nll for score in console.progress(scores, told, len(answers)))


def _sequence(answer: ScoredAnswer) -> EncodedSequence:
    prompt, ids = list(answer.prompt_ids), list(answer.written.ids)
    return EncodedSequence([*prompt, *ids], [*[IGNORE] * len(prompt), *ids])
