"""From a decoder's tokens to text as it comes, cut at the first text that stops it."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from lmflow_core.contracts.decoder import Decoder, DecodeStep, TokenLogprob
from lmflow_core.contracts.examples import Message, Segment
from lmflow_core.contracts.generation import DrawnToken
from lmflow_core.contracts.model import LanguageModel
from lmflow_core.contracts.settings import DecodingSettings
from lmflow_core.contracts.template import Template
from lmflow_core.contracts.tokens import Tokenizer
from lmflow_core.data.encoding import Encoder


class Answer:
    """An answer being written: iterate over its text; statistics are there when it ends.

    Attributes:
        prompt: the ids of the prompt.
        decoder: what draws the tokens.
        settings: the limits and the seed it draws by.
        text: the text so far.
        drawn: the tokens so far, without the stop token; the last ones may belong to a stop text.
        tokens: number of tokens drawn, the stop token included.
        drafted: tokens that were drafted for the answer.
        accepted: how many of them were kept.
        passes: passes of the model that the tokens took.
        dropped_tokens: tokens of prompt and answer that the last one did not see, from a decoder that drops some.
        seconds: time since the first token was asked for.
        finish_reason: ``stop``, ``length`` or ``cancelled``, once finished.
    """

    def __init__(
        self,
        decoder: Decoder,
        model: LanguageModel,
        prompt: Sequence[int],
        settings: DecodingSettings,
        stops: Sequence[str],
    ) -> None:
        self._model = model
        self.prompt = prompt
        self.decoder = decoder
        self.settings = settings
        self._stops = tuple(stops)
        self.prompt_tokens = len(prompt)
        self.text = ""
        self.drawn: list[DrawnToken] = []
        self.tokens = 0
        self.drafted = self.accepted = self.passes = 0
        self.dropped_tokens = 0
        self.seconds = 0.0
        self.finish_reason = "length"
        self._cancelled = False

    @property
    def tokens_per_second(self) -> float:
        """Tokens drawn per second."""
        return self.tokens / self.seconds if self.seconds else 0.0

    @property
    def acceptance_rate(self) -> float:
        """Share of the drafted tokens that were kept; 0 when none was drafted."""
        return self.accepted / self.drafted if self.drafted else 0.0

    @property
    def tokens_per_pass(self) -> float:
        """Tokens drawn per pass of the model."""
        return self.tokens / self.passes if self.passes else 0.0

    def __iter__(self) -> Iterator[str]:
        started = time.perf_counter()
        decoded = self._decoded()
        written = _until_stop(decoded, self._stops)
        for piece in written:
            self.text += piece
            self.seconds = time.perf_counter() - started
            yield piece
        if decoded.ended_by_stop_token or written_stopped(self._stops, decoded.everything, self.text):
            self.finish_reason = "stop"
        elif self._cancelled:
            self.finish_reason = "cancelled"
        self.seconds = time.perf_counter() - started
        self.tokens = decoded.tokens

    def finish(self) -> Answer:
        """Write the answer to its end."""
        for _ in self:
            pass
        return self

    def cancel(self) -> None:
        """End the answer before its next token. Another thread may call this."""
        self._cancelled = True

    @property
    def stop_ids(self) -> frozenset[int]:
        """The tokens that end the answer."""
        control = self._model.tokenizer.control_tokens
        return frozenset(control[text] for text in self._stops if text in control)

    def _decoded(self) -> _Decoded:
        stop_ids = self.stop_ids
        steps = self.decoder.decode(
            self._model,
            self.prompt,
            max_new_tokens=self.settings.max_new_tokens,
            stop_ids=stop_ids,
            seed=self.settings.seed,
        )
        return _Decoded(self._model.tokenizer, self._tokens_of(steps), stop_ids, self.drawn)

    def _tokens_of(self, steps: Iterator[DecodeStep]) -> Iterator[tuple[int, TokenLogprob | None]]:
        while not self._cancelled and (step := next(steps, None)) is not None:
            self.drafted += step.drafted
            self.accepted += step.accepted
            self.passes += step.passes
            self.dropped_tokens += step.dropped
            yield from zip(step.ids, step.logprobs or [None] * len(step.ids), strict=True)


def written_stopped(stops: Sequence[str], everything: str, text: str) -> bool:
    """Whether a stop text was met: more was decoded than was written, from a stop on."""
    return any(everything.startswith(stop, len(text)) for stop in stops)


class _Decoded:
    """Text pieces from tokens. A piece waits while its last character is incomplete."""

    def __init__(
        self,
        tokenizer: Tokenizer,
        drawing: Iterator[tuple[int, TokenLogprob | None]],
        stop_ids: frozenset[int],
        drawn: list[DrawnToken],
    ) -> None:
        self._tokenizer = tokenizer
        self._drawing = drawing
        self._stop_ids = stop_ids
        self._drawn = drawn
        self.tokens = 0
        self.everything = ""
        self.ended_by_stop_token = False

    def __iter__(self) -> Iterator[str]:
        context: list[int] = []
        fresh: list[int] = []
        logprobs: list[TokenLogprob | None] = []
        for token, logprob in self._drawing:
            self.tokens += 1
            if token in self._stop_ids:
                self.ended_by_stop_token = True
                break
            fresh.append(token)
            logprobs.append(logprob)
            piece = self._new_text(context, fresh)
            if piece and not piece.endswith("\ufffd"):
                self._keep(piece, fresh, logprobs)
                context, fresh, logprobs = fresh, [], []
                yield piece
        if fresh and (piece := self._new_text(context, fresh)):
            self._keep(piece, fresh, logprobs)
            yield piece

    def _keep(self, piece: str, fresh: Sequence[int], logprobs: Sequence[TokenLogprob | None]) -> None:
        offset = len(self.everything)
        texts = [""] * (len(fresh) - 1) + [piece]
        self._drawn += map(DrawnToken, fresh, texts, [offset] * len(fresh), logprobs)
        self.everything += piece

    def _new_text(self, context: list[int], fresh: list[int]) -> str:
        # Decoding after some context keeps the spaces that tokenizers drop at the start of a text.
        before = self._tokenizer.decode(context)
        return self._tokenizer.decode(context + fresh)[len(before) :]


def _until_stop(pieces: _Decoded, stops: Sequence[str]) -> Iterator[str]:
    """Yield text up to the first stop, holding back what may become one."""
    held = ""
    for piece in pieces:
        held += piece
        cut = min((at for stop in stops if (at := held.find(stop)) >= 0), default=-1)
        if cut >= 0:
            if cut:
                yield held[:cut]
            return
        keep = max((n for stop in stops for n in range(1, len(stop)) if held.endswith(stop[:n])), default=0)
        ready = held[: len(held) - keep]
        held = held[len(held) - keep :]
        if ready:
            yield ready
    if held:
        yield held


def prompt_ids(
    tokenizer: Tokenizer,
    template: Template | None,
    messages: Sequence[Message],
    tools: Sequence[Mapping[str, Any]] = (),
) -> list[int]:
    """Return the ids of a prompt: a conversation up to the assistant's header, or plain text without a template."""
    encoder = Encoder(tokenizer, template)
    if template is not None:
        segments: Sequence[Segment] = template.render(messages, add_generation_prompt=True, tools=tools)
    else:
        segments = encoder.opened(Segment(messages[-1].content))
    return list(encoder.encode_segments([segments])[0].input_ids)


def all_stops(settings: DecodingSettings, template: Template | None, tokenizer: Tokenizer) -> list[str]:
    """Return every text that ends an answer: the template's, the tokenizer's end token and the user's."""
    stops = [
        *(template.stop if template else ()),
        *([tokenizer.eos] if tokenizer.eos else []),
        *settings.stop,
    ]
    return list(dict.fromkeys(stop for stop in stops if stop))
