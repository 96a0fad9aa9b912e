"""The loop all decoders with drafts share: draft, check in one pass of the model, keep what holds."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch

from lmflow_core.api import DecodeStep, TokenLogprob
from lmflow_speculative.caching import CachedNetwork
from lmflow_speculative.drafts import Draft, Drafter
from lmflow_speculative.drawing import Drawing
from lmflow_speculative.pace import Pace
from lmflow_transformers.api import SamplingOptions, token_logprob


def checked(
    network: CachedNetwork,
    drafter: Drafter,
    drawing: Drawing,
    pace: Pace,
    prompt: Sequence[int],
    options: SamplingOptions,
    *,
    max_new_tokens: int,
    stop_ids: frozenset[int],
) -> Iterator[DecodeStep]:
    """Yield the tokens of an answer, one or more for each pass of the network."""
    ids = list(prompt)
    end = len(prompt) + max_new_tokens
    while len(ids) < end:
        # A pass gives one token beyond the draft, so the last one needs no draft.
        length = min(pace.length(), end - len(ids) - 1)
        draft = drafter.draft(ids, length) if length else Draft([])
        logits = network.logits([*ids, *draft.tokens], len(draft.tokens) + 1)
        tokens = _drawn(ids, draft, logits, drawing)
        accepted = len(tokens) - 1
        pace.tell(len(draft.tokens), accepted)
        tokens, stopped = _until_stop(tokens, stop_ids)
        logprobs = _logprobs(logits, tokens, options)
        yield DecodeStep(tuple(tokens), len(draft.tokens), min(accepted, len(tokens)), logprobs=logprobs)
        if stopped:
            return
        ids += tokens


def _drawn(ids: Sequence[int], draft: Draft, logits: torch.Tensor, drawing: Drawing) -> list[int]:
    """Return the drafted tokens that are kept and one more: in place of the first refused, or behind the last."""
    text = torch.tensor([*ids, *draft.tokens], device=logits.device)
    for place, token in enumerate(draft.tokens):
        target = drawing.distribution(text[: len(ids) + place], logits[place])
        offered = None if draft.probabilities is None else draft.probabilities[place]
        if not drawing.keeps(token, target, offered):
            return [*draft.tokens[:place], drawing.redraw(token, target, offered)]
    return [*draft.tokens, drawing.draw(drawing.distribution(text, logits[-1]))]


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
