"""From tokens to text, one token at a time, cut at the first text that stops it."""

from __future__ import annotations

from collections.abc import Sequence

from lmflow_core.contracts.decoder import TokenLogprob
from lmflow_core.contracts.generation import SampledToken
from lmflow_core.contracts.tokens import Tokenizer

# What a decoder of UTF-8 writes in the place of bytes that are no whole character.
_INCOMPLETE = "\ufffd"


class AnswerWriter:
    """The text of one answer, token by token.

    Attributes:
        ids: the tokens so far, the one that ended the answer included.
        sampled: the same with their texts, without a stop token; the last ones may belong to a stop text.
        stopped: whether a stop token or a stop text ended the answer; it takes no more tokens.
    """

    def __init__(self, tokenizer: Tokenizer, stop_ids: frozenset[int], stops: Sequence[str]) -> None:
        self._characters = _Characters(tokenizer)
        self._cut = _StopCutter(stops)
        self._stop_ids = stop_ids
        self.ids: list[int] = []
        self.stopped = False

    @property
    def sampled(self) -> list[SampledToken]:
        """The tokens whose text is known."""
        return self._characters.tokens

    def take(self, token: int, logprob: TokenLogprob | None = None) -> str:
        """Add a token; return the text that can be shown now, which is often empty."""
        self.ids.append(token)
        if token in self._stop_ids:
            self.stopped = True
            return self.end()
        text = self._cut.take(self._characters.take(token, logprob))
        self.stopped = self._cut.met
        return text

    def end(self) -> str:
        """Return the text that was held back, as nothing follows."""
        if self._cut.met:
            return ""
        text = self._cut.take(self._characters.end()) + self._cut.end()
        self.stopped = self.stopped or self._cut.met
        return text


class _Characters:
    """Whole characters from tokens: the last bytes of a text may be the beginning of a character."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._context: list[int] = []
        self._fresh: list[int] = []
        self._logprobs: list[TokenLogprob | None] = []
        self._length = 0
        self.tokens: list[SampledToken] = []

    def take(self, token: int, logprob: TokenLogprob | None) -> str:
        """Add a token; return what it completes."""
        self._fresh.append(token)
        self._logprobs.append(logprob)
        text = self._fresh_text()
        return "" if text.endswith(_INCOMPLETE) else self._told(text)

    def end(self) -> str:
        """Return what is left, whole or not."""
        return self._told(self._fresh_text()) if self._fresh else ""

    def _fresh_text(self) -> str:
        # Many tokenizers drop the space before the first token of a text. So the new tokens are decoded behind those of
        # the last piece, whose text is then taken off, and never alone; all tokens at once would take ever longer.
        before = self._tokenizer.decode(self._context)
        return self._tokenizer.decode(self._context + self._fresh)[len(before) :]

    def _told(self, text: str) -> str:
        if text:
            # The bytes of one character may come in several tokens; the last of these has its text.
            texts = [""] * (len(self._fresh) - 1) + [text]
            offsets = [self._length] * len(self._fresh)
            self.tokens += map(SampledToken, self._fresh, texts, offsets, self._logprobs)
            self._context, self._fresh, self._logprobs = self._fresh, [], []
            self._length += len(text)
        return text


class _StopCutter:
    """Text up to the first stop text. What may be the beginning of one is held back until more text tells."""

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = tuple(stops)
        self._held = ""
        self.met = False

    def take(self, text: str) -> str:
        """Add text; return what certainly stands before any stop."""
        if not text:
            return ""
        held = self._held + text
        # Of several stops that are complete now, the one that begins first cuts.
        cut = min((at for stop in self._stops if (at := held.find(stop)) >= 0), default=None)
        if cut is not None:
            self.met, self._held = True, ""
            return held[:cut]
        # The longest end of the text that begins a stop stays back.
        kept = max((_begun(stop, held) for stop in self._stops), default=0)
        self._held = held[len(held) - kept :]
        return held[: len(held) - kept]

    def end(self) -> str:
        """Return what was held back: no stop came of it."""
        held, self._held = self._held, ""
        return held


def _begun(stop: str, text: str) -> int:
    """Return how many characters of a stop text, fewer than all, a text ends with."""
    longest = min(len(stop) - 1, len(text))
    return next((n for n in range(longest, 0, -1) if text.endswith(stop[:n])), 0)
