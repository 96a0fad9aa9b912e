"""From a decoder's tokens to text as it comes, cut at the first text that stops it."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence

from lmflow_core.contracts import Decoder, LanguageModel, Template, Tokenizer
from lmflow_core.conversations import Message, Segment
from lmflow_core.encoding import Encoder
from lmflow_core.errors import RequestError
from lmflow_core.settings import DecodingSettings


class Answer:
    """An answer being written: iterate over its text; statistics are there when it ends.

    Attributes:
        text: the text so far.
        tokens: number of tokens drawn, the stop token included.
        seconds: time since the first token was asked for.
        finish_reason: ``stop`` or ``length``, once finished.
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
        self._prompt = prompt
        self._decoder = decoder
        self._settings = settings
        self._stops = tuple(stops)
        self.prompt_tokens = len(prompt)
        self.text = ""
        self.tokens = 0
        self.seconds = 0.0
        self.finish_reason = "length"

    @property
    def tokens_per_second(self) -> float:
        """Tokens drawn per second."""
        return self.tokens / self.seconds if self.seconds else 0.0

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
        self.seconds = time.perf_counter() - started
        self.tokens = decoded.tokens

    def finish(self) -> Answer:
        """Write the answer to its end."""
        for _ in self:
            pass
        return self

    def _decoded(self) -> _Decoded:
        control = self._model.tokenizer.control_tokens
        stop_ids = frozenset(control[text] for text in self._stops if text in control)
        steps = self._decoder.decode(
            self._model,
            self._prompt,
            max_new_tokens=self._settings.max_new_tokens,
            stop_ids=stop_ids,
            seed=self._settings.seed,
        )
        ids = (token for step in steps for token in step.ids)
        return _Decoded(self._model.tokenizer, ids, stop_ids)


def written_stopped(stops: Sequence[str], everything: str, text: str) -> bool:
    """Whether a stop text was met: more was decoded than was written, from a stop on."""
    return any(everything.startswith(stop, len(text)) for stop in stops)


class _Decoded:
    """Text pieces from token ids. A piece waits while its last character is incomplete."""

    def __init__(self, tokenizer: Tokenizer, ids: Iterator[int], stop_ids: frozenset[int]) -> None:
        self._tokenizer = tokenizer
        self._ids = ids
        self._stop_ids = stop_ids
        self.tokens = 0
        self.everything = ""
        self.ended_by_stop_token = False

    def __iter__(self) -> Iterator[str]:
        context: list[int] = []
        fresh: list[int] = []
        for token in self._ids:
            self.tokens += 1
            if token in self._stop_ids:
                self.ended_by_stop_token = True
                break
            fresh.append(token)
            piece = self._new_text(context, fresh)
            if piece and not piece.endswith("\ufffd"):
                context, fresh = fresh, []
                self.everything += piece
                yield piece
        if fresh and (piece := self._new_text(context, fresh)):
            self.everything += piece
            yield piece

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


def prompt_ids(tokenizer: Tokenizer, template: Template | None, messages: Sequence[Message]) -> list[int]:
    """Return the ids of a prompt: a conversation up to the assistant's header, or plain text without a template.

    Raises:
        RequestError: the template has no place for one of the messages.
    """
    encoder = Encoder(tokenizer, template)
    if template is None:
        segments: Sequence[Segment] = encoder.opened(Segment(messages[-1].content))
    else:
        try:
            segments = template.render(messages, add_generation_prompt=True)
        except ValueError as error:
            raise RequestError(str(error)) from error
    return list(encoder.encode_segments([segments])[0].input_ids)


def all_stops(settings: DecodingSettings, template: Template | None, tokenizer: Tokenizer) -> list[str]:
    """Return every text that ends an answer: the template's, the tokenizer's end token and the user's."""
    stops = [
        *(template.stop if template else ()),
        *([tokenizer.eos] if tokenizer.eos else []),
        *settings.stop,
    ]
    return list(dict.fromkeys(stop for stop in stops if stop))
