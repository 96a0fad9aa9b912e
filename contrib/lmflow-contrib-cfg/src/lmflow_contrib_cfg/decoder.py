"""Classifier-free guidance (Sanchez et al., arXiv:2306.17806) on top of plain sampling."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from transformers import DynamicCache

from lmflow_contrib_cfg.options import GuidanceOptions
from lmflow_core.api import DecodeStep, DecodingRequest, RequestError, TokenLogprob
from lmflow_transformers.api import CausalModel, SamplingDecoder, TokenChooser, WholeText, for_decoding, token_logprob


class GuidedDecoder(SamplingDecoder):
    """Samples each token from what the prompt makes of it against what another prompt does. Satisfies ``BatchDecoder``.

    In a batch the answers share the passes over their own texts; each reads the other one by itself.
    """

    def __init__(self, options: GuidanceOptions | None = None) -> None:
        self._guidance = options or GuidanceOptions()
        super().__init__(self._guidance)

    def chooser(self, model: CausalModel, request: DecodingRequest) -> TokenChooser:
        """Return what chooses the tokens of an answer.

        Raises:
            RequestError: the negative prompt leaves no room for the answer.
        """
        if self._guidance.guidance_scale == 1:
            return super().chooser(model, request)
        return GuidedChooser(model, self._guidance, request, self._other_prompt(model, request))

    def layout(self, model: CausalModel) -> WholeText:
        """Return how texts of a batch are kept, with memory for the others."""
        if self._guidance.guidance_scale == 1:
            return super().layout(model)
        return TwoTexts(len(_negative(model, self._guidance)))

    def _other_prompt(self, model: CausalModel, request: DecodingRequest) -> Sequence[int]:
        ids = _negative(model, self._guidance)
        most = model.context_length
        if most is not None and len(ids) + request.max_new_tokens > most:
            raise RequestError(
                f"--negative-prompt has {len(ids):,} tokens, and with {request.max_new_tokens:,} of the answer does "
                f"not fit the context of {most:,}: shorten it, or lower --max-new-tokens"
            )
        return ids or request.prompt[-1:]


@dataclass(frozen=True)
class TwoTexts(WholeText):
    """The layout of a text beside which another one, of ``negative`` tokens before the answer, is kept."""

    negative: int

    def tokens(self, length: int) -> int:
        """Return for how many tokens there is memory at most; of the text all but a token may be answer."""
        return 2 * length + self.negative


class GuidedChooser(TokenChooser):
    """Samples from log p(token | other) + scale * (log p(token | prompt) - log p(token | other)).

    Temperature, penalties and the rest act on the outcome, as in transformers. Log-probabilities that are told are
    those of the model behind the prompt, without guidance.

    Args:
        model: loaded.
        options: the scale, and how tokens are sampled.
        request: what is asked.
        other: ids of the prompt that is led away from, at least one.
    """

    def __init__(
        self, model: CausalModel, options: GuidanceOptions, request: DecodingRequest, other: Sequence[int]
    ) -> None:
        super().__init__(model, options, request)
        self._guidance = options
        self._other = _OtherText(model, other)
        self._seen = len(request.prompt)

    def choose(self, ids: Sequence[int], draft: Sequence[int], logits: torch.Tensor) -> DecodeStep:
        """Return the next token, after a pass of the model over the other text.

        Args:
            ids: the prompt and the answer so far.
            draft: nothing, as nothing is drafted.
            logits: (1, vocabulary), float32, behind ``ids``.
        """
        unguided = self._other.read(ids[self._seen :]).log_softmax(-1)
        self._seen = len(ids)
        guided = unguided + self._guidance.guidance_scale * (logits.log_softmax(-1) - unguided)
        step = super().choose(ids, draft, guided)
        return replace(step, passes=step.passes + 1, logprobs=self._logprobs(step, logits[0]))

    def _logprobs(self, step: DecodeStep, logits: torch.Tensor) -> tuple[TokenLogprob, ...]:
        alternatives = self._guidance.logprobs
        return () if alternatives is None else tuple(token_logprob(logits, token, alternatives) for token in step.ids)


class _OtherText:
    """The answer behind another prompt, with its own keys and values."""

    def __init__(self, model: CausalModel, prompt: Sequence[int]) -> None:
        self._model = model
        self._unread = list(prompt)
        self._kept = for_decoding(model.network, DynamicCache(config=model.base.config))

    def read(self, fresh: Sequence[int]) -> torch.Tensor:
        """Read further tokens of the answer; return the logits (1, vocabulary), float32, behind them."""
        ids = torch.tensor([[*self._unread, *fresh]], device=self._model.device)
        self._unread = []
        output = self._model.network(input_ids=ids, logits_to_keep=1, **self._kept)
        logits: torch.Tensor = output.logits[:, -1].float()
        return logits


def _negative(model: CausalModel, options: GuidanceOptions) -> list[int]:
    """Return the ids of the negative prompt, none where there is none; the model's opening token stands before it."""
    if not options.negative_prompt:
        return []
    ids: list[int] = model.tokenizer.inner(options.negative_prompt).input_ids
    return ids
