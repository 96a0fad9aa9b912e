"""A chat template in Jinja, a model's own or a user's, with a mask that is verified by rendering.

Jinja gives one text and does not say where in it the contents are, nor which of it the model writes. So a conversation
is rendered again with marks in place of its contents, and once more up to each answer. What does not come out as it
must is refused: a mask is right, or there is none.

An image is found by its placeholder, which the model's processor puts the ids of the image in the place of.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any

from lmflow_core.contracts.examples import Message, Segment, check_turns, is_trained
from lmflow_core.contracts.tokens import Tokenizer
from lmflow_core.templates.marks import INSTEAD, MarkedMessages, Piece
from lmflow_core.templates.sandbox import TemplateLimitError


class JinjaTemplate:
    """A Jinja chat template, rendered by the tokenizer in its sandbox.

    Raises:
        ValueError: the template does not end an answer with a control token.
    """

    def __init__(self, tokenizer: Tokenizer, jinja: str, placeholder: str | None = None) -> None:
        """Render with these; ``placeholder`` is what stands for an image, for a model that takes images."""
        self._tokenizer = tokenizer
        self._jinja = jinja
        self._placeholder = placeholder
        self._parts = False
        self.stop = (self._find_stop(),)

    @property
    def fingerprint(self) -> str:
        """A digest of the Jinja text."""
        return hashlib.sha256(self._jinja.encode()).hexdigest()[:16]

    def bind(self, bos: str | None, eos: str | None) -> JinjaTemplate:
        """Return the template itself: it has its tokenizer."""
        return self

    def read_calls(self, text: str, tools: Sequence[Mapping[str, Any]] = ()) -> None:
        """Return None: Jinja does not say how calls are written."""

    def to_jinja(self, image: str = "") -> str:
        """Return the Jinja text, which writes its own for an image."""
        return self._jinja

    def render(
        self, messages: Sequence[Message], add_generation_prompt: bool, tools: Sequence[Mapping[str, Any]] = ()
    ) -> tuple[Segment, ...]:
        """Render a conversation as segments.

        Raises:
            ValueError: the template refuses the conversation, or what is trained on cannot be told for sure.
        """
        check_turns(messages)
        self._check_free_of_controls(messages, tools)
        # Marks stand for the contents alone, so what lies between them is the template's, and what stands for them in
        # the true rendering is from the data and never becomes a control token.
        found = MarkedMessages(messages)
        skeleton = self._text(found.marked, add_generation_prompt, tools)
        pieces = found.aligned(skeleton, self._text(found.plain, add_generation_prompt, tools), self._placeholder)
        try:
            spans = [*self._trained_spans(found, skeleton, tools)]
        except ValueError:
            if not add_generation_prompt:
                raise
            spans = []  # nothing is trained on a prompt
        return tuple(_segments(pieces, spans))

    def _text(self, messages: Sequence[Message], prompt: bool, tools: Sequence[Mapping[str, Any]]) -> str:
        text = self._rendered(messages, prompt, tools)
        if text is None:
            raise ValueError(f"the chat template refuses this conversation: {INSTEAD}")
        return text

    def _rendered(
        self, messages: Sequence[Message], prompt: bool, tools: Sequence[Mapping[str, Any]] = ()
    ) -> str | None:
        try:
            return self._tokenizer.render_chat(messages, prompt, tools, self._jinja, **self._form)
        except TemplateLimitError as error:
            raise ValueError(str(error)) from error

    @property
    def _form(self) -> dict[str, bool]:
        """In which form the template takes contents: as texts, or all of them as lists of parts."""
        return {"parts": True} if self._parts else {}

    def _check_free_of_controls(self, messages: Sequence[Message], tools: Sequence[Mapping[str, Any]]) -> None:
        """Refuse control tokens in tools and calls, which are written as JSON and cannot be told from the template."""
        calls = [[call.name, dict(call.arguments)] for message in messages for call in message.tool_calls]
        if not tools and not calls:
            return
        written = json.dumps([*tools, *calls], ensure_ascii=False)
        found = self._controls.search(written)
        if found:
            raise ValueError(f"a tool or a call of one holds the control token {found[0]!r}: {INSTEAD}")

    def _trained_spans(
        self, found: MarkedMessages, skeleton: str, tools: Sequence[Mapping[str, Any]]
    ) -> Iterator[tuple[int, int]]:
        """Yield the parts of the marked rendering that are trained on, each an answer with its stop."""
        for at, message in enumerate(found.marked):
            left_out = self._writes_reasoning and (message.reasoning or "") not in skeleton
            if not is_trained(message) or left_out:
                continue  # an answer whose reasoning is left out would teach the model to give it without any
            if message.role == "user":
                yield from self._user_spans(found.contents(at), skeleton)
                continue
            # An answer is what follows its prompt. A template may render earlier turns otherwise once there are later
            # ones; then the model would be asked with another prompt than it was trained behind.
            prompt = self._text(found.marked[:at], True, tools)
            if not skeleton.startswith(prompt):
                raise ValueError(
                    f"the chat template does not repeat the prompt of turn {at + 1} before its answer, so that the "
                    f"model would not be trained on what it writes: {INSTEAD}, or train only on the last answer "
                    "with --train-on last"
                )
            yield len(prompt), self._end_of_answer(at, found, skeleton, len(prompt))

    def _user_spans(self, marks: Sequence[str], skeleton: str) -> Iterator[tuple[int, int]]:
        end = 0
        for mark in marks:
            start = skeleton.find(mark)
            if start >= 0:
                end = start + len(mark)
                yield start, end
        if end and skeleton.startswith(self.stop[0], end):
            yield end, end + len(self.stop[0])

    def _end_of_answer(self, at: int, found: MarkedMessages, skeleton: str, start: int) -> int:
        # The stop counts only behind the content. Between the two must be nothing of another turn's: else the template
        # leaves this answer out, and the mark that was found is that of a later one.
        marks = found.contents(at)
        written = skeleton.find(marks[-1], start) if marks else start
        end = skeleton.find(self.stop[0], written) if written >= 0 else -1
        others = found.owners(skeleton, start, end)
        if end < 0 or any(other != at for other in others):
            raise ValueError(
                f"the chat template does not write the answer of turn {at + 1} and {self.stop[0]!r} behind it: "
                f"{INSTEAD}, or train only on the last answer with --train-on last"
            )
        return end + len(self.stop[0])

    @cached_property
    def _controls(self) -> re.Pattern[str]:
        longest_first = sorted(self._tokenizer.control_tokens, key=len, reverse=True)
        return re.compile("|".join(map(re.escape, longest_first)) or "(?!)")

    @cached_property
    def _writes_reasoning(self) -> bool:
        reasoned = MarkedMessages((Message("user", "a"), Message("assistant", "b", reasoning="t"))).marked
        return str(reasoned[1].reasoning) in self._text(reasoned, False, ())

    def _find_stop(self) -> str:
        probe = MarkedMessages((Message("user", "a"), Message("assistant", "b")))
        texts = [mark for at in (0, 1) for mark in probe.contents(at)]
        text = self._rendered(probe.marked, False) or ""
        if not all(mark in text for mark in texts):
            self._parts = True  # a template of a model that sees may know lists of parts only
            listed = self._rendered(probe.marked, False) or ""
            self._parts = all(mark in listed for mark in texts)
            text = listed if self._parts else self._text(probe.marked, False, ())
        found = self._controls.search(text, max(text.find(texts[1]), 0))
        if found is None or texts[1] not in text:
            raise ValueError(f"the chat template ends an answer with no control token: {INSTEAD}")
        return found[0]


def _segments(pieces: Sequence[Piece], spans: Sequence[tuple[int, int]]) -> Iterator[Segment]:
    """Cut pieces where a span begins or ends; positions are those of the marked rendering."""
    borders = sorted({border for span in spans for border in span})
    start = 0
    for piece in pieces:
        end = start + len(piece.marked)
        if piece.image is not None:
            yield Segment("", image=piece.image)
        elif piece.from_data:
            yield Segment(piece.text, any(first <= start < last for first, last in spans))
        else:
            cuts = [start, *(border for border in borders if start < border < end), end]
            for left, right in itertools.pairwise(cuts):
                trained = any(first <= left < last for first, last in spans)
                if left < right:
                    yield Segment(piece.text[left - start : right - start], trained, control=True)
        start = end
