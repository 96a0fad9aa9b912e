"""Plain decoding: one token per pass, with a key-value cache."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

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

from lmflow_core.api import DecodeStep, DecodingRequest, ModelServices, TokenLogprob
from lmflow_transformers.batching import Batch, batches_apply, rows_of
from lmflow_transformers.caching import for_decoding
from lmflow_transformers.models import CausalModel
from lmflow_transformers.options import SamplingOptions


class SamplingDecoder:
    """Samples each token from the model's processed distribution. Satisfies ``BatchDecoder``."""

    def __init__(self, options: SamplingOptions | None = None) -> None:
        self._options = options or SamplingOptions()

    def prepare(self, model: CausalModel, services: ModelServices) -> None:
        """Do nothing: every causal model can be sampled from."""

    @torch.inference_mode()
    def decode(self, model: CausalModel, request: DecodingRequest) -> Iterator[DecodeStep]:
        """Yield one token at a time."""
        kept = for_decoding(model.network, DynamicCache(config=model.base.config))

        def read(fresh: torch.Tensor) -> torch.Tensor:
            output = model.network(input_ids=fresh, logits_to_keep=1, **kept)
            logits: torch.Tensor = output.logits[:, -1].float()
            return logits

        yield from sample_tokens(read, request, self._options, model.device)

    @torch.inference_mode()
    def decode_many(self, model: CausalModel, requests: Sequence[DecodingRequest]) -> Iterator[tuple[int, DecodeStep]]:
        """Yield one token at a time with the index of its request; one pass gives a token of every unfinished answer.

        A model whose answers would depend on the prompts beside them answers one request after the other.
        """
        asked = rows_of(requests, model.device)
        processors = logits_processors(self._options)
        for rows in [asked] if batches_apply(model) else [[row] for row in asked]:
            batch = Batch(model, rows)
            while batch.rows:
                for row, scores in zip(batch.rows, batch.logits(), strict=True):
                    ids = torch.tensor([row.ids], device=model.device)
                    token = int(_sample(processors(ids, scores[None]), row.generator, self._options))
                    row.ids.append(token)
                    yield row.place, _step(scores, token, self._options)
                batch.keep([not row.finished for row in batch.rows])


def sample_tokens(
    read: Callable[[torch.Tensor], torch.Tensor],
    request: DecodingRequest,
    options: SamplingOptions,
    device: torch.device,
) -> Iterator[DecodeStep]:
    """Yield one token at a time behind a prompt until a stop id (which is yielded last) or the limit.

    Args:
        read: from the ids (1, new), int64, that it has not been given before to the logits (1, vocabulary), float32,
            behind the last of them.
        request: what is sampled.
        options: how a token is sampled.
        device: where the ids are, and the random generator.
    """
    processors = logits_processors(options)
    generator = torch.Generator(device).manual_seed(request.seed)
    fresh = ids = torch.tensor([list(request.prompt)], device=device)
    for _ in range(request.max_new_tokens):
        logits = read(fresh)
        fresh = _sample(processors(ids, logits), generator, options)
        ids = torch.cat([ids, fresh], dim=1)
        token = int(fresh)
        yield _step(logits[0], token, options)
        if token in request.stop_ids:
            return


def _step(logits: torch.Tensor, token: int, options: SamplingOptions) -> DecodeStep:
    logprobs = () if options.logprobs is None else (token_logprob(logits, token, options.logprobs),)
    return DecodeStep((token,), logprobs=logprobs)


def _sample(scores: torch.Tensor, generator: torch.Generator, options: SamplingOptions) -> torch.Tensor:
    if options.temperature == 0:
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
