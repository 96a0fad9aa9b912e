"""Many answers: together where the decoder samples for several prompts at once, else one after the other.

An answer does not depend on the others beside it: it is the one that its request alone would get.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import cast

from lmflow_core.contracts.decoder import BatchDecoder, Decoder, DecoderSpec, DecodingRequest
from lmflow_core.contracts.generation import GeneratedAnswer
from lmflow_core.contracts.model import LanguageModel
from lmflow_core.generation.answers import Answer, stop_tokens
from lmflow_core.generation.context import answer_limit, context_limit


def generate_many(
    decoder: Decoder, spec: DecoderSpec, model: LanguageModel, answers: Sequence[Answer]
) -> Iterator[Answer]:
    """Write some answers to their ends and yield them, in the order given.

    Args:
        decoder: prepared for the model.
        spec: that of the decoder; it tells whether it samples for several prompts at once.
        model: loaded.
        answers: not begun yet, each of this model and decoder.
    """
    if spec.batches and len(answers) > 1:
        _write_together(cast(BatchDecoder, decoder), model, answers)
        yield from answers
    else:
        yield from (answer.finish() for answer in answers)


def _write_together(decoder: BatchDecoder, model: LanguageModel, answers: Sequence[Answer]) -> None:
    for place, step in decoder.decode_many(model, [answer.begin() for answer in answers]):
        answers[place].take(step)
        # A stop text is unknown to the decoder, which would go on until every answer is as long as it may be.
        if answers[place].ended and all(answer.ended for answer in answers):
            break
    for answer in answers:
        answer.close()


def generated_answers(
    decoder: Decoder,
    spec: DecoderSpec,
    model: LanguageModel,
    requests: Sequence[DecodingRequest],
    *,
    stops: Sequence[str] = (),
) -> list[GeneratedAnswer]:
    """Return an answer to each request, in their order.

    Args:
        decoder: prepared for the model.
        spec: that of the decoder.
        model: loaded; it answers with the weights it has now.
        requests: what is asked; an answer ends where the context does.
        stops: texts that end an answer, beside the ``stop_ids`` of its request. Those that are control tokens of the
            model need not be among the ``stop_ids``. :func:`~lmflow_core.generation.answers.own_stops` are those of a
            template and of the model.

    Raises:
        PromptTooLongError: a prompt leaves no room in the context for a token.
    """
    context = context_limit(model, spec)
    ids = stop_tokens(stops, model.tokenizer)
    answers = []
    for asked in requests:
        most = answer_limit(context, len(asked.prompt), asked.max_new_tokens)
        request = replace(asked, max_new_tokens=most, stop_ids=asked.stop_ids | ids)
        answers.append(Answer(decoder, model, request, stops))
    return [answer.result() for answer in generate_many(decoder, spec, model, answers)]
