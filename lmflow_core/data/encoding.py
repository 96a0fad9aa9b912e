"""Segments to token ids and labels.

Text is encoded in runs. A run ends at a control token and where trainability changes: the second keeps a prompt's
tokens the same in training and when an answer is asked for, whatever the first letters of the answer are.
"""

from __future__ import annotations

import re
from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache

from lmflow_core.contracts.examples import Conversation, Example, Prompted, Segment, Text, with_training
from lmflow_core.contracts.template import Template
from lmflow_core.contracts.tokens import IGNORE, Encoded, Tokenizer

_UNLABELLED = array("i", (IGNORE,))


class _Opening(Segment):
    """The token that a tokenizer itself puts before a plain text, which begins behind it as it would alone."""


@dataclass
class _Run:
    """Text to encode at once, or one control token (``token`` is its id)."""

    text: str
    trainable: bool
    continues: bool = False
    token: int | None = None


Runs = list[_Run]


class Encoder:
    """Encodes examples with one tokenizer and one (bound) template."""

    def __init__(self, tokenizer: Tokenizer, template: Template | None, train_on: str = "assistant") -> None:
        """Encode with these; ``train_on`` is the policy of :func:`lmflow_core.conversations.with_training`."""
        self.tokenizer = tokenizer
        self.template = template
        self._train_on = train_on
        # A template says the same few texts again and again.
        self._cut = lru_cache(maxsize=1024)(self._cut_apart)

    def encode(self, examples: Sequence[Example]) -> list[Encoded]:
        """Encode a batch of examples.

        Raises:
            ValueError: a conversation does not fit the template, or there is none.
        """
        return self.encode_segments([self.segments(example) for example in examples])

    def segments(self, example: Example) -> tuple[Segment, ...]:
        """Render one example.

        Raises:
            ValueError: a conversation does not fit the template, or there is none.
        """
        if isinstance(example, Conversation):
            return self._rendered(example)
        end = Segment(self.tokenizer.eos or "", True, control=True)
        if isinstance(example, Text):
            return self.opened(Segment(example.text, trainable=True), end)
        if isinstance(example, Prompted):
            return self.opened(Segment(example.prompt), Segment(example.completion, trainable=True), end)
        raise ValueError(f"a {example.kind} example is not encoded as one text")

    def _rendered(self, conversation: Conversation) -> tuple[Segment, ...]:
        if self.template is None:
            raise ValueError("a conversation needs a template, and none is chosen: add --template NAME")
        messages = with_training(conversation.messages, self._train_on)
        return self.template.render(messages, add_generation_prompt=False, tools=conversation.tools)

    def opened(self, *segments: Segment) -> tuple[Segment, ...]:
        """Return the segments of a plain text behind the token that opens it, where the model wants one."""
        opening = _Opening(self.tokenizer.bos or "", control=True)
        return tuple(segment for segment in (opening, *segments) if segment.text)

    def encode_segments(self, rendered: Sequence[Sequence[Segment]]) -> list[Encoded]:
        """Encode rendered examples in one call of the tokenizer."""
        return self.encode_runs([self.runs(segments) for segments in rendered])

    def encode_runs(self, examples: Sequence[Runs]) -> list[Encoded]:
        """Encode examples that are split into runs, in one call of the tokenizer."""
        texts = [run for runs in examples for run in runs if run.token is None]
        encoded = iter(self.tokenizer.encode([run.text for run in texts], [run.continues for run in texts]))
        return [_assembled(runs, encoded) for runs in examples]

    def runs(self, segments: Sequence[Segment]) -> Runs:
        """Split a rendered example into what is encoded at once."""
        return [*self._runs(segments)]

    def _runs(self, segments: Sequence[Segment]) -> Iterator[_Run]:
        pending: _Run | None = None
        continues = swallowing = False
        swallowers = self.tokenizer.swallows_space
        spaces = self.tokenizer.spaces_after_control or any(isinstance(segment, _Opening) for segment in segments)
        for piece, trainable, token in self._pieces(segments):
            takes_before, takes_behind = (False, False) if token is None else swallowers.get(piece, (False, False))
            if pending and takes_before:
                pending.text = pending.text.rstrip()
            if pending and (token is not None or trainable != pending.trainable):
                yield pending
                pending, continues = None, True
            if token is not None:
                yield _Run(piece, trainable, token=token)
                continues, swallowing = not spaces, takes_behind
                continue
            if swallowing:
                piece = piece.lstrip()
                swallowing = not piece
            if pending:
                pending.text += piece
            elif piece:
                pending = _Run(piece, trainable, continues=continues)
        if pending:
            yield pending

    def _pieces(self, segments: Iterable[Segment]) -> Iterator[tuple[str, bool, int | None]]:
        for segment in segments:
            if not segment.control:
                yield segment.text, segment.trainable, None
                continue
            for piece, token in self._cut(segment.text):
                yield piece, segment.trainable, token

    def _cut_apart(self, text: str) -> tuple[tuple[str, int | None], ...]:
        """Return the control tokens of a template's text, with their ids, and what stands between them."""
        known = self.tokenizer.control_tokens
        return tuple((piece, known.get(piece)) for piece in self._control_pattern.split(text) if piece)

    @cached_property
    def _control_pattern(self) -> re.Pattern[str]:
        longest_first = sorted(self.tokenizer.control_tokens, key=len, reverse=True)
        return re.compile(f"({'|'.join(map(re.escape, longest_first))})" if longest_first else r"(?!)")


def _assembled(runs: Runs, encoded: Iterator[list[int]]) -> Encoded:
    input_ids, labels = array("i"), array("i")
    for run in runs:
        ids = array("i", next(encoded) if run.token is None else (run.token,))
        input_ids += ids
        labels += ids if run.trainable else _UNLABELLED * len(ids)
    return Encoded(input_ids, labels)
