"""Segments to token ids and labels.

Text is encoded in runs. A run ends at a control token and where trainability changes: the second keeps a prompt's
tokens the same in training and when an answer is asked for, whatever the first letters of the answer are.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

from lmflow_core.contracts import IGNORE, Encoded, Template, Tokenizer
from lmflow_core.conversations import Conversation, Example, Prompted, Segment, Text


class _Opening(Segment):
    """The token that a tokenizer itself puts before a plain text, which begins behind it as it would alone."""


@dataclass
class _Run:
    """Text to encode at once, or one control token (``token`` is its id)."""

    text: str
    trainable: bool
    continues: bool = False
    token: int | None = None


class Encoder:
    """Encodes examples with one tokenizer and one (bound) template."""

    def __init__(self, tokenizer: Tokenizer, template: Template | None) -> None:
        self.tokenizer = tokenizer
        self.template = template

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
        eos = self.tokenizer.eos or ""
        if isinstance(example, Text):
            return self.opened(Segment(example.text, trainable=True), Segment(eos, True, control=True))
        if isinstance(example, Prompted):
            completion = Segment(example.completion, trainable=True)
            return self.opened(Segment(example.prompt), completion, Segment(eos, True, control=True))
        return self._rendered(example)

    def _rendered(self, conversation: Conversation) -> tuple[Segment, ...]:
        if self.template is None:
            raise ValueError("a conversation needs a template, and none is chosen: add --template NAME")
        return self.template.render(conversation.messages, add_generation_prompt=False, tools=conversation.tools)

    def opened(self, *segments: Segment) -> tuple[Segment, ...]:
        """Return the segments of a plain text behind the token that opens it, where the model wants one."""
        opening = _Opening(self.tokenizer.bos or "", control=True)
        return tuple(segment for segment in (opening, *segments) if segment.text)

    def encode_segments(self, rendered: Sequence[Sequence[Segment]]) -> list[Encoded]:
        """Encode rendered examples in one call of the tokenizer."""
        runs = [[*self._runs(segments)] for segments in rendered]
        texts = [run for example in runs for run in example if run.token is None]
        encoded = iter(self.tokenizer.encode([run.text for run in texts], [run.continues for run in texts]))
        return [_assembled(example, encoded) for example in runs]

    def _runs(self, segments: Sequence[Segment]) -> Iterator[_Run]:
        pending: _Run | None = None
        continues = swallowing = False
        spaces = self.tokenizer.spaces_after_control or any(isinstance(segment, _Opening) for segment in segments)
        for piece, trainable, token in self._pieces(segments):
            takes_before, takes_behind = self.tokenizer.swallows_space.get(piece, (False, False))
            if pending and token is not None and takes_before:
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
            for piece in self._control_pattern.split(segment.text):
                if piece:
                    yield piece, segment.trainable, self.tokenizer.control_tokens.get(piece)

    @cached_property
    def _control_pattern(self) -> re.Pattern[str]:
        longest_first = sorted(self.tokenizer.control_tokens, key=len, reverse=True)
        return re.compile(f"({'|'.join(map(re.escape, longest_first))})" if longest_first else r"(?!)")


def _assembled(runs: Sequence[_Run], encoded: Iterator[list[int]]) -> Encoded:
    input_ids: list[int] = []
    labels: list[int] = []
    for run in runs:
        ids = next(encoded) if run.token is None else [run.token]
        input_ids += ids
        labels += ids if run.trainable else [IGNORE] * len(ids)
    return Encoded(input_ids, labels)
