"""Plain decoding: one token per pass, with a key-value cache."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from transformers import (
    DynamicCache,
    LogitsProcessorList,
    MinPLogitsWarper,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from lmflow_core.api import DecodeStep, TokenLogprob
from lmflow_transformers.batching import Batch, batches_apply, rows_of
from lmflow_transformers.caching import with_cache
from lmflow_transformers.models import CausalModel
from lmflow_transformers.options import SamplingOptions


class SamplingDecoder:
    """Draws each token from the model's processed distribution."""

    def __init__(self, options: SamplingOptions | None = None) -> None:
        self._options = options or SamplingOptions()

    @torch.inference_mode()
    def decode(
        self,
        model: CausalModel,
        prompt: Sequence[int],
        *,
        max_new_tokens: int,
        stop_ids: frozenset[int],
        seed: int,
    ) -> Iterator[DecodeStep]:
        """Yield one token at a time."""
        generator = torch.Generator(model.device).manual_seed(seed)
        processors = logits_processors(self._options)
        ids = torch.tensor([list(prompt)], device=model.device)
        kept = with_cache(model.network, DynamicCache(config=model.base.config))
        fresh = ids
        for _ in range(max_new_tokens):
            output = model.network(input_ids=fresh, logits_to_keep=1, **kept)
            logits = output.logits[:, -1].float()
            fresh = self._draw(processors(ids, logits), generator)
            ids = torch.cat([ids, fresh], dim=1)
            token = int(fresh)
            yield self._step(logits[0], token)
            if token in stop_ids:
                return

    @torch.inference_mode()
    def decode_many(
        self,
        model: CausalModel,
        prompts: Sequence[Sequence[int]],
        *,
        max_new_tokens: int,
        stop_ids: frozenset[int],
        seeds: Sequence[int],
    ) -> Iterator[tuple[int, DecodeStep]]:
        """Yield one token at a time with the index of its prompt; one pass gives a token of every unfinished answer."""
        asked = rows_of(model, prompts, seeds)
        processors = logits_processors(self._options)
        for rows in [asked] if batches_apply(model) else [[row] for row in asked]:
            batch = Batch(model, rows)
            for _ in range(max_new_tokens):
                logits = batch.logits()
                for row, scores in zip(batch.rows, logits, strict=True):
                    ids = torch.tensor([row.ids], device=model.device)
                    token = int(self._draw(processors(ids, scores[None]), row.generator))
                    row.ids.append(token)
                    yield row.place, self._step(scores, token)
                batch.keep([row.ids[-1] not in stop_ids for row in batch.rows])
                if not batch.rows:
                    break

    def _step(self, logits: torch.Tensor, token: int) -> DecodeStep:
        asked = self._options.logprobs
        logprobs = () if asked is None else (token_logprob(logits, token, asked),)
        return DecodeStep((token,), logprobs=logprobs)

    def _draw(self, scores: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        if self._options.temperature == 0:
            return scores.argmax(-1, keepdim=True)
        return torch.multinomial(scores.softmax(-1), 1, generator=generator)


def token_logprob(logits: torch.Tensor, token: int, alternatives: int) -> TokenLogprob:
    """Return how likely a model found a token, by its logits (vocabulary,), with the likeliest alternatives."""
    logprobs = logits.log_softmax(-1)
    best = logprobs.topk(min(alternatives, len(logprobs)))
    told = zip(best.indices.tolist(), best.values.tolist(), strict=True)
    return TokenLogprob(float(logprobs[token]), tuple(told))


def logits_processors(options: SamplingOptions) -> LogitsProcessorList:
    """Return transformers' processors for some options, in the order its own ``generate`` uses."""
    processors = LogitsProcessorList()
    if options.repetition_penalty != 1.0:
        processors.append(RepetitionPenaltyLogitsProcessor(options.repetition_penalty))
    if options.temperature not in (0.0, 1.0):
        processors.append(TemperatureLogitsWarper(options.temperature))
    if options.temperature and options.top_k:
        processors.append(TopKLogitsWarper(options.top_k))
    if options.temperature and options.top_p < 1.0:
        processors.append(TopPLogitsWarper(options.top_p))
    if options.temperature and options.min_p:
        processors.append(MinPLogitsWarper(options.min_p))
    return processors
