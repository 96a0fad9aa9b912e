"""The loop all decoders with drafts share: draft, check in one pass of the model, keep what holds."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch

from lmflow_core.api import DecodeStep, DecodingRequest, TokenLogprob
from lmflow_speculative.caching import CachedNetwork
from lmflow_speculative.drafts import Draft, Drafter
from lmflow_speculative.pace import Pace
from lmflow_speculative.sampling_rule import SamplingRule
from lmflow_transformers.api import SamplingOptions, token_logprob


def checked(
    network: CachedNetwork,
    drafter: Drafter,
    rule: SamplingRule,
    pace: Pace,
    request: DecodingRequest,
    options: SamplingOptions,
) -> Iterator[DecodeStep]:
    """Yield the tokens of an answer, one or more for each pass of the network."""
    ids = list(request.prompt)
    end = len(ids) + request.max_new_tokens
    while len(ids) < end:
        # A pass gives one token beyond the draft, so the last one needs no draft.
        length = min(pace.length(), end - len(ids) - 1)
        draft = drafter.draft(ids, length) if length else Draft([])
        logits = network.logits([*ids, *draft.tokens], len(draft.tokens) + 1)
        tokens = _sampled(ids, draft, logits, rule)
        accepted = len(tokens) - 1
        pace.tell(len(draft.tokens), accepted)
        tokens, stopped = _until_stop(tokens, request.stop_ids)
        logprobs = _logprobs(logits, tokens, options)
        yield DecodeStep(tuple(tokens), len(draft.tokens), min(accepted, len(tokens)), logprobs=logprobs)
        if stopped:
            return
        ids += tokens


def _sampled(ids: Sequence[int], draft: Draft, logits: torch.Tensor, rule: SamplingRule) -> list[int]:
    """Return the drafted tokens that are kept and one more: in place of the first refused, or behind the last."""
    text = torch.tensor([*ids, *draft.tokens], device=logits.device)
    for place, token in enumerate(draft.tokens):
        target = rule.distribution(text[: len(ids) + place], logits[place])
        if draft.probabilities is None:
            kept = rule.sample(target)
        elif rule.keeps(token, target, draft.probabilities[place]):
            kept = token
        else:
            kept = rule.resample(target, draft.probabilities[place])
        if kept != token:
            return [*draft.tokens[:place], kept]
    return [*draft.tokens, rule.sample(rule.distribution(text, logits[-1]))]


def _until_stop(tokens: list[int], stop_ids: frozenset[int]) -> tuple[list[int], bool]:
    """Return tokens up to the first stop, and whether there was one."""
    for place, token in enumerate(tokens):
        if token in stop_ids:
            return tokens[: place + 1], True
    return tokens, False


def _logprobs(logits: torch.Tensor, tokens: Sequence[int], options: SamplingOptions) -> tuple[TokenLogprob, ...]:
    asked = options.logprobs
    if asked is None:
        return ()
    # Behind the first refused token, and behind a stop, there are logits for tokens that are not in the answer.
    told = zip(logits, tokens, strict=False)
    return tuple(token_logprob(row.float(), token, asked) for row, token in told)
