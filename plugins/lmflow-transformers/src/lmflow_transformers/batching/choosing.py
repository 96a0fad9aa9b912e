"""How the tokens of one answer are chosen from the logits of a pass."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from lmflow_core.api import DecodeStep, DecodingRequest, TokenLogprob
from lmflow_transformers.models import CausalModel
from lmflow_transformers.options import SamplingOptions
from lmflow_transformers.processing import logits_processors


class TokenChooser:
    """Samples each token from the model's processed distribution.

    A drafted token is kept where it is the one that is sampled. So drafts change neither the answer nor, as each token
    of it takes one random choice, what the seed makes of it.

    Args:
        model: loaded.
        options: how tokens are sampled.
        request: what is asked.

    Raises:
        RequestError: the model cannot answer by these options.
    """

    def __init__(self, model: CausalModel, options: SamplingOptions, request: DecodingRequest) -> None:
        self._options = options
        self._processors = logits_processors(model, options, request)
        self._generator = torch.Generator(model.device).manual_seed(request.seed)
        self._stop_ids = request.stop_ids

    def draft(self, ids: Sequence[int], most: int, beside: int) -> Sequence[int]:
        """Return tokens that may follow, for the next pass to check: none.

        Args:
            ids: the prompt and the answer so far.
            most: how many tokens may be returned.
            beside: how many answers share the pass, this one included.
        """
        return ()

    def choose(self, ids: Sequence[int], draft: Sequence[int], logits: torch.Tensor) -> DecodeStep:
        """Return the next tokens: those of the draft that hold, and one more; a stop comes last.

        Args:
            ids: the prompt and the answer so far.
            draft: tokens that :meth:`draft` returned.
            logits: (len(draft) + 1, vocabulary), float32, behind ``ids`` and behind each drafted token.
        """
        text = torch.tensor([[*ids, *draft]], device=logits.device)
        tokens: list[int] = []
        logprobs: list[TokenLogprob] = []
        for place, row in enumerate(logits):
            token = self._sampled(text[:, : len(ids) + place], row[None])
            tokens.append(token)
            if self._options.logprobs is not None:
                logprobs.append(token_logprob(row, token, self._options.logprobs))
            if token in self._stop_ids or place == len(draft) or token != draft[place]:
                break
        accepted = sum(one == other for one, other in zip(tokens, draft, strict=False))
        return DecodeStep(tuple(tokens), len(draft), accepted, logprobs=tuple(logprobs))

    def adjusted(self, ids: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
        """Return the logits that the next token is chosen by: those of the model, which must not be written to.

        Temperature, penalties and the rest act on the outcome; log-probabilities that are told stay the model's own.

        Args:
            ids: (1, length), the text so far.
            logits: (1, vocabulary), float32.
        """
        return logits

    def _sampled(self, ids: torch.Tensor, logits: torch.Tensor) -> int:
        scores = self._processors(ids, self.adjusted(ids, logits))
        if self._options.temperature == 0:
            return int(scores.argmax(-1))
        return int(torch.multinomial(scores.softmax(-1), 1, generator=self._generator))


def token_logprob(logits: torch.Tensor, token: int, alternatives: int) -> TokenLogprob:
    """Return how likely a model found a token, by its logits (vocabulary,), with the likeliest alternatives."""
    logprobs = logits.log_softmax(-1)
    best = logprobs.topk(min(alternatives, len(logprobs)))
    told = zip(best.indices.tolist(), best.values.tolist(), strict=True)
    return TokenLogprob(float(logprobs[token]), tuple(told))
