"""What makes of a model's logits the distribution that tokens are sampled from."""

from __future__ import annotations

from transformers import (
    LogitsProcessorList,
    MinPLogitsWarper,
    RepetitionPenaltyLogitsProcessor,
    SequenceBiasLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from lmflow_core.api import DecodingRequest, RequestError
from lmflow_transformers.models import CausalModel
from lmflow_transformers.options import SamplingOptions, biases
from lmflow_transformers.structured import answer_schema


def logits_processors(model: CausalModel, options: SamplingOptions, request: DecodingRequest) -> LogitsProcessorList:
    """Return transformers' processors for one answer, in the order its own ``generate`` uses.

    Before them come those that take tokens away: biases, and a schema that the answer follows.

    Raises:
        RequestError: the answer cannot follow the schema, or a bias is for no token of the model.
    """
    processors = LogitsProcessorList()
    if options.logit_bias:
        processors.append(_bias(model, biases(options.logit_bias)))
    schema = answer_schema(model, options, request)
    if schema is not None:
        processors.append(schema)
    processors.extend(sampling_processors(options))
    return processors


def sampling_processors(options: SamplingOptions) -> LogitsProcessorList:
    """Return those of transformers' processors that need to know nothing of the model."""
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


def check_sampling(model: CausalModel, options: SamplingOptions) -> None:
    """Check that answers of a loaded model can be sampled by some options.

    Raises:
        RequestError: they cannot follow the schema, or a bias is for no token of the model.
    """
    if not options.logit_bias and options.json_schema is None:
        return
    eos = model.tokenizer.inner.eos_token_id
    logits_processors(model, options, DecodingRequest((), 1, frozenset(() if eos is None else (eos,))))


def _bias(model: CausalModel, by_token: dict[int, float]) -> SequenceBiasLogitsProcessor:
    size = model.base.config.get_text_config().vocab_size
    unknown = [token for token in by_token if token >= size]
    if unknown:
        raise RequestError(f"--logit-bias: the model has {size} tokens, and none with the id {unknown[0]}")
    return SequenceBiasLogitsProcessor([[[token], bias] for token, bias in by_token.items()])
