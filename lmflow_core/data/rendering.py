"""What each kind of example becomes: sequences of segments, and the numbers that go with them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from lmflow_core.contracts.examples import (
    Candidates,
    Conversation,
    Example,
    ImagePart,
    ImageText,
    Judged,
    Preference,
    Prompt,
    Prompted,
    Segment,
    Text,
    with_training,
)
from lmflow_core.contracts.template import Template
from lmflow_core.contracts.tokens import Tokenizer


class OpeningSegment(Segment):
    """The token that a tokenizer itself puts before a plain text, which begins behind it as it would alone."""


class RenderedExample(NamedTuple):
    """The segments of each sequence of an example, its numbers, and whether its sequences carry labels."""

    sequences: Sequence[Sequence[Segment]]
    numbers: Mapping[str, tuple[float, ...]]
    labelled: bool = True


class ExampleRenderer:
    """Renders examples for one tokenizer with one (bound) template."""

    def __init__(self, tokenizer: Tokenizer, template: Template | None, train_on: str) -> None:
        """Render with these; ``train_on`` is the policy of :func:`lmflow_core.contracts.examples.with_training`."""
        self._tokenizer = tokenizer
        self._template = template
        self._train_on = train_on

    def render(self, example: Example) -> RenderedExample:
        """Render one example, as the table of :class:`lmflow_core.contracts.tokens.EncodedExample` says.

        Raises:
            ValueError: it does not fit the template, there is none, or it has no text.
        """
        match example:
            case Conversation() | Text() | Prompted() | ImageText():
                return RenderedExample((self._sequence(example),), {})
            case Prompt():
                return RenderedExample((self._prompt(example),), {}, labelled=False)
            case Preference():
                both = (self._sequence(example.chosen), self._sequence(example.rejected))
                return RenderedExample(both, {} if example.margin is None else {"margin": (example.margin,)})
            case Judged():
                return RenderedExample((self._sequence(example.example),), {"desirable": (float(example.desirable),)})
            case Candidates():
                answers = [self._sequence(Prompted(example.prompt, text)) for text in example.texts]
                # Two answers without scores are told from a pair, whose first is the better, by scores that are none.
                return RenderedExample(answers, {"scores": example.scores or (math.nan,) * len(answers)})
            case _:
                raise ValueError(f"a {example.kind} example has no sequence")

    def _sequence(self, example: Conversation | Text | Prompted | ImageText) -> Sequence[Segment]:
        if isinstance(example, Conversation):
            messages = with_training(example.messages, self._train_on)
            return self._chosen_template().render(messages, add_generation_prompt=False, tools=example.tools)
        end = Segment(self._tokenizer.eos or "", True, control=True)
        if isinstance(example, Prompted):
            return self.opened(Segment(example.prompt), Segment(example.completion, trainable=True), end)
        images = example.images if isinstance(example, ImageText) else ()
        shown = (Segment("", image=ImagePart(source)) for source in images)
        return self.opened(*shown, Segment(example.text, trainable=True), end)

    def _prompt(self, prompt: Prompt) -> Sequence[Segment]:
        # Answers of earlier turns stay marked as trainable, as where an answer is asked for: text is encoded in runs
        # that end where this changes, and the ids must be the same. The labels are taken off behind that.
        return self._chosen_template().render(prompt.messages, add_generation_prompt=True, tools=prompt.tools)

    def _chosen_template(self) -> Template:
        if self._template is None:
            raise ValueError("a conversation needs a template, and none is chosen: add --template NAME")
        return self._template

    def opened(self, *segments: Segment) -> tuple[Segment, ...]:
        """Return the segments of a plain text behind the token that opens it, where the model wants one."""
        opening = OpeningSegment(self._tokenizer.bos or "", control=True)
        return tuple(segment for segment in (opening, *segments) if segment.text or segment.image is not None)
