"""An answer to a prompt: what it is sampled by, its text as it comes, and how it went."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from lmflow_core.contracts.decoder import Decoder, DecodeStep, DecodingRequest
from lmflow_core.contracts.examples import ImagePart, Message, Part, Segment
from lmflow_core.contracts.generation import GeneratedAnswer, SampledToken
from lmflow_core.contracts.model import LanguageModel
from lmflow_core.contracts.settings import DecodingSettings
from lmflow_core.contracts.template import Template
from lmflow_core.contracts.tokens import EncodedSequence, Tokenizer
from lmflow_core.data.encoding import Encoder
from lmflow_core.generation.text import AnswerWriter


class Answer:
    """An answer being written: iterate over its text; statistics are there when it ends.

    Instead of iterating, who drives a decoder for many answers at once begins each, lets it take the steps that are its
    own, and closes it.

    Attributes:
        request: what its tokens are sampled by.
        decoder: samples them.
        text: the text so far.
        drafted: tokens that were drafted for the answer.
        accepted: how many of them were kept.
        passes: passes of the model that the tokens took.
        dropped_tokens: tokens of prompt and answer that the last one did not see, from a decoder that drops some.
        seconds: time from the beginning to the last token.
        finish_reason: ``stop``, ``length`` or ``cancelled``, once finished.
    """

    def __init__(
        self, decoder: Decoder, model: LanguageModel, request: DecodingRequest, stops: Sequence[str] = ()
    ) -> None:
        """Answer ``request``; texts of ``stops`` end the answer, as the ``stop_ids`` of the request do."""
        self.decoder = decoder
        self._model = model
        self.request = request
        self._writer = AnswerWriter(model.tokenizer, request.stop_ids, stops)
        self._started = 0.0
        self._cancelled = False
        self.text = ""
        self.drafted = self.accepted = self.passes = 0
        self.dropped_tokens = 0
        self.seconds = 0.0
        self.finish_reason = "length"

    @property
    def prompt_tokens(self) -> int:
        """Length of the prompt."""
        return len(self.request.prompt)

    @property
    def max_new_tokens(self) -> int:
        """How many tokens the answer may have."""
        return self.request.max_new_tokens

    @property
    def ids(self) -> Sequence[int]:
        """The tokens so far, the one that ended the answer included."""
        return self._writer.ids

    @property
    def sampled(self) -> list[SampledToken]:
        """The tokens so far, without the stop token; the last ones may belong to a stop text."""
        return self._writer.sampled

    @property
    def tokens(self) -> int:
        """Number of tokens sampled, the stop token included."""
        return len(self._writer.ids)

    @property
    def tokens_per_second(self) -> float:
        """Tokens sampled per second."""
        return self.tokens / self.seconds if self.seconds else 0.0

    @property
    def acceptance_rate(self) -> float:
        """Share of the drafted tokens that were kept; 0 when none was drafted."""
        return self.accepted / self.drafted if self.drafted else 0.0

    @property
    def tokens_per_pass(self) -> float:
        """Tokens sampled per pass of the model."""
        return self.tokens / self.passes if self.passes else 0.0

    @property
    def ended(self) -> bool:
        """Whether no further token is wanted: a stop came, or somebody cancelled."""
        return self._writer.stopped or self._cancelled

    def __iter__(self) -> Iterator[str]:
        self.begin()
        steps = self.decoder.decode(self._model, self.request)
        while not self.ended and (step := next(steps, None)) is not None:
            if piece := self.take(step):
                yield piece
        if piece := self.close():
            yield piece

    def finish(self) -> Answer:
        """Write the answer to its end."""
        for _ in self:
            pass
        return self

    def cancel(self) -> None:
        """End the answer before its next token. Another thread may call this."""
        self._cancelled = True

    def begin(self) -> DecodingRequest:
        """Start the clock; return what a decoder is to be asked."""
        self._started = time.perf_counter()
        return self.request

    def take(self, step: DecodeStep) -> str:
        """Add a step of the decoder; return the text that can be shown now. Behind the end nothing is added."""
        if self.ended:
            return ""
        self.drafted += step.drafted
        self.accepted += step.accepted
        self.passes += step.passes
        self.dropped_tokens += step.dropped
        piece = ""
        for token, logprob in zip(step.ids, step.logprobs or [None] * len(step.ids), strict=True):
            piece += self._writer.take(token, logprob)
            if self._writer.stopped:
                break
        self.text += piece
        self.seconds = time.perf_counter() - self._started
        return piece

    def close(self) -> str:
        """End the answer, as its decoder gave the last step; return the text that was held back."""
        piece = self._writer.end()
        self.text += piece
        if self._writer.stopped:
            self.finish_reason = "stop"
        elif self._cancelled:
            self.finish_reason = "cancelled"
        return piece

    def result(self) -> GeneratedAnswer:
        """Return what was written."""
        return GeneratedAnswer(tuple(self.ids), self.text, self.finish_reason)


def encoded_prompt(
    encoder: Encoder, messages: Sequence[Message], tools: Sequence[Mapping[str, Any]] = ()
) -> EncodedSequence:
    """Return a prompt: a conversation up to the assistant's header, or plain text where the encoder has no template.

    Raises:
        ValueError: the template has no place for a message or for tools, or an image cannot be read or taken.
    """
    if encoder.template is not None:
        segments: Sequence[Segment] = encoder.template.render(messages, add_generation_prompt=True, tools=tools)
    else:
        segments = encoder.opened(*map(_plain, messages[-1].parts))
    return encoder.encode_segments([segments])[0]


def _plain(part: Part) -> Segment:
    return Segment("", image=part) if isinstance(part, ImagePart) else Segment(part)


def all_stops(settings: DecodingSettings, template: Template | None, tokenizer: Tokenizer) -> list[str]:
    """Return every text that ends an answer: the template's, the tokenizer's end token and the user's."""
    return [*dict.fromkeys([*own_stops(template, tokenizer), *(stop for stop in settings.stop if stop)])]


def own_stops(template: Template | None, tokenizer: Tokenizer) -> list[str]:
    """Return the texts that end an answer by themselves: the template's and the tokenizer's end token."""
    stops = [*(template.stop if template else ()), *([tokenizer.eos] if tokenizer.eos else [])]
    return [*dict.fromkeys(stop for stop in stops if stop)]


def stop_tokens(stops: Sequence[str], tokenizer: Tokenizer) -> frozenset[int]:
    """Return the ids of those stops that are control tokens: a decoder ends at them by itself."""
    control = tokenizer.control_tokens
    return frozenset(control[text] for text in stops if text in control)
